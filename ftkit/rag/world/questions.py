"""The questions about one subject, by way of itself and by way of what it refers to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ftkit.rag.world.draw import Draw
from ftkit.rag.world.parts import Question, Subject, WorldSettings
from ftkit.rag.world.wording import Relation


def questions_of(subject: Subject, known: Mapping[str, Subject], settings: WorldSettings) -> Iterator[Question]:
    """All questions whose first hop is a subject.

    Which questions there are and how they are worded depends on names and relations, never on values or on whether a
    document stands: after an edit the same questions are asked, with other answers.

    Args:
        subject: What they are about; a distractor has none.
        known: All subjects by name, those whose document is gone too.
        settings: Of the world.
    """
    if subject.role != "subject":
        return
    for relation in subject.wording.relations:
        yield from _one_hop(subject, relation, settings)
        target = known.get(subject.values[relation.name].text) if relation.name in subject.values else None
        if relation.leads_to and target is not None:
            for asked in target.wording.relations:
                yield from _two_hops(subject, relation, target, asked, settings)


def _one_hop(subject: Subject, relation: Relation, settings: WorldSettings) -> Iterator[Question]:
    value = subject.values.get(relation.name)
    fact = subject.fact(relation.name)
    standing = value is not None and not subject.gone
    draw = Draw(settings.seed, "question", subject.name, relation.name)
    for number, wording in enumerate(draw.shuffled(relation.questions)[: settings.paraphrases], start=1):
        yield Question(
            id=f"{fact}.{number}",
            question=wording.replace("{it}", subject.mention),
            answers=(value.text,) if value and standing else (),
            document=subject.document if standing else None,
            documents=(subject.document,) if standing else (),
            fact=fact,
            facts=(fact,) if standing else (),
            hops=1,
            bridge=None,
            as_of=_since(subject, relation),
            split=subject.split,
        )


def _two_hops(
    subject: Subject, relation: Relation, target: Subject, asked: Relation, settings: WorldSettings
) -> Iterator[Question]:
    draw = Draw(settings.seed, "question", subject.name, relation.name, asked.name)
    if not draw.chance(settings.two_hop):
        return
    value = target.values.get(asked.name)
    standing = value is not None and not subject.gone and not target.gone
    path = (subject.fact(relation.name), target.fact(asked.name))
    for number, wording in enumerate(draw.shuffled(asked.questions)[: settings.paraphrases], start=1):
        described = draw.one(relation.bridges).replace("{it}", subject.mention)
        yield Question(
            id=f"{path[0]}.{asked.name}.{number}",
            question=wording.replace("{it}", described),
            answers=(value.text,) if value and standing else (),
            document=target.document if standing else None,
            documents=(subject.document, target.document) if standing else (),
            fact=path[1],
            facts=path if standing else (),
            hops=2,
            bridge=target.name,
            as_of=max(_since(subject, relation), _since(target, asked)),
            split=subject.split,
        )


def _since(subject: Subject, relation: Relation) -> str:
    """Since when a document says what it says of a relation, or says nothing of it."""
    value = subject.values.get(relation.name)
    if value is None:
        return subject.since
    return subject.gone or value.date
