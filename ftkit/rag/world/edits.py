"""Changes of a world: which there can be, and what each does to documents and questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ftkit.rag.world.build import link, links_of, names_of, new_subject
from ftkit.rag.world.documents import render
from ftkit.rag.world.draw import Draw
from ftkit.rag.world.kinds import CYCLE
from ftkit.rag.world.parts import Edit, EditKind, Question, Subject, Value, WorldSettings, days_after
from ftkit.rag.world.questions import questions_of
from ftkit.rag.world.values import new_value
from ftkit.rag.world.wording import Relation

# Later than every document of a new world.
FIRST_EDIT, EDIT_DAYS = "2024-01-01", 300


class State:
    """The subjects while edits are made one after the other, each seeing those before it.

    Args:
        subjects: Of the world.
        settings: Of the world.
    """

    def __init__(self, subjects: Iterable[Subject], settings: WorldSettings) -> None:
        self.settings = settings
        self.known = {subject.name: subject for subject in subjects}
        self._referring: dict[str, list[str]] = {}
        for subject in self.known.values():
            self._note(subject)

    def put(self, after: Subject) -> tuple[str, ...]:
        """Replace or add a subject; gives the ids of all questions that are different or new then."""
        # Its own questions, and those of two hops that pass through it.
        touched = dict.fromkeys([after.name, *self._referring.get(after.name, ())])
        old = self._questions(touched)
        self.known[after.name] = after
        self._note(after)
        return tuple(name for name, question in self._questions(touched).items() if old.get(name) != question)

    def _questions(self, names: Iterable[str]) -> dict[str, Question]:
        return {
            question.id: question
            for name in names
            if name in self.known
            for question in questions_of(self.known[name], self.known, self.settings)
        }

    def _note(self, subject: Subject) -> None:
        for relation in subject.wording.relations:
            if relation.leads_to and relation.name in subject.values:
                self._referring.setdefault(subject.values[relation.name].text, []).append(subject.name)


def change_values(state: State, n: int, seed: int) -> Iterator[Edit]:
    """Give ``n`` facts, each of another subject, another value.

    Raises:
        ValueError: There are not so many subjects with a fact that can change.
    """
    draw = Draw(state.settings.seed, "change", seed)
    names, linked = names_of(state.known.values()), links_of(state.known.values())
    twins = {subject.twin: subject for subject in state.known.values() if subject.twin}
    done = 0
    for before in draw.shuffled(_standing(state)):
        if done == n:
            return
        for relation in draw.shuffled([one for one in before.wording.relations if one.name in before.values]):
            old = before.values[relation.name].text
            if relation.leads_to and old in state.known:
                others = _other_targets(state, before, relation, linked.get((before.split, relation.leads_to), ()))
                if not others:
                    continue
                new = draw.one(others)
            else:
                twin = twins.get(before.name)
                confusable = (twin.values[relation.name].text,) if twin else ()
                new = new_value(relation.value, draw, names, avoid=(old, *confusable))
            date = _later(before, draw)
            after = replace(before, date=date, values={**before.values, relation.name: Value(new, date)})
            yield _edit("change", state, before, after, fact=before.fact(relation.name), old=old, new=new)
            done += 1
            break
    _require(done, n, "change")


def add_subjects(state: State, n: int, seed: int) -> Iterator[Edit]:
    """Add ``n`` subjects that the world does not know yet."""
    names, linked = names_of(state.known.values()), links_of(state.known.values())
    for index in range(n):
        draw = Draw(state.settings.seed, "addition", seed, index)
        date = days_after(FIRST_EDIT, draw.below(EDIT_DAYS))
        after = new_subject(CYCLE[index % len(CYCLE)], draw, names, linked, state.settings, date)
        link(after, linked)
        yield _edit("addition", state, None, after)


def remove_documents(state: State, n: int, seed: int) -> Iterator[Edit]:
    """Take ``n`` subjects' documents away; what only they stated has no answer any more.

    Raises:
        ValueError: There are not so many documents of subjects.
    """
    draw = Draw(state.settings.seed, "removal", seed)
    chosen = draw.shuffled(_standing(state))[:n]
    for before in chosen:
        yield _edit("removal", state, before, replace(before, gone=_later(before, draw)))
    _require(len(chosen), n, "remove")


def apply_edits(subjects: Sequence[Subject], edits: Iterable[Edit]) -> tuple[Subject, ...]:
    """The subjects after edits.

    Raises:
        ValueError: An edit was made for another state of its subject, or adds one that is there.
    """
    known = {subject.name: subject for subject in subjects}
    for edit in edits:
        if known.get(edit.after.name) != edit.before:
            raise ValueError(f"the edit of {edit.document!r} was made for another state of this world")
        known[edit.after.name] = edit.after
    return tuple(known.values())


def _edit(
    kind: EditKind,
    state: State,
    before: Subject | None,
    after: Subject,
    *,
    fact: str | None = None,
    old: str | None = None,
    new: str | None = None,
) -> Edit:
    return Edit(
        kind=kind, fact=fact, old=old, new=new, document=after.document,
        text=None if after.gone else render(after, state.settings.seed)[0].text,
        date=after.gone or after.date, questions=state.put(after), before=before, after=after,
    )  # fmt: skip


def _standing(state: State) -> list[Subject]:
    return [subject for subject in state.known.values() if subject.role == "subject" and not subject.gone]


def _other_targets(state: State, subject: Subject, relation: Relation, names: Sequence[str]) -> list[str]:
    """What a reference may point to instead; not back at what refers to it, or a question would hold its answer."""
    old = subject.values[relation.name].text
    return [
        name
        for name in names
        if name not in (subject.name, old)
        and all(value.text != subject.name for value in state.known[name].values.values())
    ]


def _later(subject: Subject, draw: Draw) -> str:
    return days_after(max(subject.date, FIRST_EDIT), draw.between(1, EDIT_DAYS))


def _require(found: int, n: int, verb: str) -> None:
    if found < n:
        raise ValueError(f"cannot {verb} {n}: this world has only {found} subjects for it")
