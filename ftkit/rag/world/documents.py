"""The page about one subject, and where in it each value stands."""

from __future__ import annotations

from ftkit.rag.world.draw import Draw
from ftkit.rag.world.parts import Document, Fact, Subject
from ftkit.rag.world.values import MONTHS

MIN_FILLERS, MAX_FILLERS = 1, 3
NOISE_SENTENCES = 4


def render(subject: Subject, seed: int) -> tuple[Document, tuple[Fact, ...]]:
    """A subject's document and the facts in it.

    Which sentences and in which order depends on the seed and the name, never on values: after an edit everything
    else stands as before.
    """
    draw = Draw(seed, "document", subject.name)
    kind = subject.wording
    opening = draw.one(kind.openings)
    sentences = [(relation.name, draw.one(relation.sentences)) for relation in kind.relations]
    fillers = draw.between(MIN_FILLERS, MAX_FILLERS) if kind.relations else NOISE_SENTENCES
    sentences += [("", filler) for filler in draw.shuffled(kind.fillers)[:fillers]]
    order = [one for one in draw.shuffled(sentences) if not one[0] or one[0] in subject.values]

    title = subject.mention[:1].upper() + subject.mention[1:]
    text = f"# {title}\n\nLast updated: {long_date(subject.date)}\n\n{_filled(opening, subject)}"
    facts = {}
    for place, (relation, sentence) in enumerate(order):
        # Two paragraphs, as on a page that people read.
        text += "\n\n" if place == (len(order) + 1) // 2 else " "
        before, slot, after = sentence.partition("{value}")
        text += _filled(before, subject)
        if slot:
            value = subject.values[relation]
            facts[relation] = Fact(
                id=subject.fact(relation), subject=subject.name, relation=relation, value=value.text,
                date=value.date, document=subject.document, start=len(text), end=len(text) + len(value.text),
            )  # fmt: skip
            text += value.text + after.replace("{it}", subject.mention)
    document = Document(
        id=subject.document, text=text + "\n", metadata={"title": title, "date": subject.date}, role=subject.role
    )
    return document, tuple(facts[relation.name] for relation in kind.relations if relation.name in facts)


def long_date(date: str) -> str:
    """``2023-03-04`` as ``4 March 2023``."""
    year, month, day = date.split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def _filled(sentence: str, subject: Subject) -> str:
    """A sentence's beginning with its subject, capitalised."""
    text = sentence.replace("{it}", subject.mention)
    return text[:1].upper() + text[1:]
