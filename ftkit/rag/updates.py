"""Does the next answer follow an edit? Documents are edited one by one and asked about, then all is rolled back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ftkit.rag.answering import RagSystem
from ftkit.rag.blame import comparable, is_right
from ftkit.rag.cited import CitedAnswer, Latency
from ftkit.rag.document import Document
from ftkit.rag.world import ClosedWorld, Edit, Question

Verdict = Literal["new", "old", "other"]
VERDICTS: tuple[Verdict, ...] = ("new", "old", "other")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One question asked after one edit.

    Attributes:
        kind: Of the edit: change, addition or removal.
        document: That changed, came or went.
        question: Its id.
        answer: What was said; None where the system abstained.
        verdict: Whether that is what the documents say now, what they said before, or neither.
    """

    kind: str
    document: str
    question: str
    answer: str | None
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What edits did to answers.

    Attributes:
        steps: In the order of the edits.
        untouched: Questions that no edit was about.
        harmed: Ids of those that were answered rightly before all edits and are not after them.
        asked_again: Questions that were asked before the edits and after the rollback.
        right_before: How many of them were answered rightly before: no answer follows an edit that was never right.
        restored: How many of them have exactly the former answer: text, passages, versions and scores.
    """

    steps: tuple[Step, ...]
    untouched: int
    harmed: tuple[str, ...]
    asked_again: int
    right_before: int
    restored: int

    def counts(self, kind: str | None = None) -> dict[Verdict, int]:
        """Answers by verdict, of one kind of edit or of all."""
        found = Counter(step.verdict for step in self.steps if kind in (None, step.kind))
        return {verdict: found[verdict] for verdict in VERDICTS}


def draw_edits(world: ClosedWorld, n: int, seed: int = 0) -> list[Edit]:
    """``n`` edits to be applied in this order: a half changes, a quarter additions, a quarter removals, about."""
    additions, removals = n // 4, n // 4
    edits = world.edit(n - additions - removals, seed)
    edits += world.apply(edits).add(additions, seed)
    edits += world.apply(edits).remove(removals, seed)
    return edits


def world_documents(world: ClosedWorld) -> list[Document]:
    """A world's documents, to be indexed."""
    return [
        Document(id=one.id, text=one.text, metadata={"title": one.metadata["title"], "date": one.metadata["date"]})
        for one in world.documents
    ]


def measure_updates(
    system: RagSystem, world: ClosedWorld, edits: Sequence[Edit], *, asked: int = 2, untouched: int = 20
) -> UpdateReport:
    """Apply edits to a system's index, ask after each, then roll everything back.

    Args:
        system: Its index holds the world's documents.
        world: Before the edits.
        edits: Of `draw_edits`.
        asked: Questions after each edit, those about the edited fact first.
        untouched: Questions that no edit is about.
    """
    version = system.index.version
    touched = {name for edit in edits for name in edit.questions}
    others = [one for one in world.questions if one.id not in touched and one.answers][:untouched]
    chosen = {name: None for edit in edits for name in _asked_after(edit, asked)}
    former = [one for one in world.questions if one.id in chosen] + others
    before = [_timeless(system.ask(question.question)) for question in former]
    steps: list[Step] = []
    now = world
    for edit in edits:
        then, now = now, now.apply([edit])
        apply_edit(system, edit)
        steps += _ask_after(system, edit, then, now, asked)
    known = dict(zip((one.id for one in former), before, strict=True))
    harmed = tuple(
        one.id for one in others if _right(known[one.id], one) and not _right(system.ask(one.question), one)
    )
    system.index.rollback(version)
    after = [_timeless(system.ask(question.question)) for question in former]
    return UpdateReport(
        steps=tuple(steps),
        untouched=len(others),
        harmed=harmed,
        asked_again=len(former),
        right_before=sum(_right(answer, one) for answer, one in zip(before, former, strict=True)),
        restored=sum(old == new for old, new in zip(before, after, strict=True)),
    )


def apply_edit(system: RagSystem, edit: Edit) -> None:
    """Bring a system's index up to date with one edit of a world."""
    if edit.text is None:
        system.index.remove([edit.document])
    else:
        metadata = {"title": edit.after.mention[:1].upper() + edit.after.mention[1:], "date": edit.date}
        document = Document(id=edit.document, text=edit.text, metadata=dict(metadata))
        system.index.add([document], system.encoders)


def verdict_of(said: str | None, *, old: Sequence[str], new: Sequence[str]) -> Verdict:
    """Whether an answer is the new one, the old one, or neither.

    An answer that holds both is new only where the old value is a part of the new one.

    Args:
        said: None where the system abstained.
        old: Right answers before; empty where abstaining was right.
        new: Right answers now; empty where abstaining is right.
    """
    is_new, is_old = is_right(said, new), is_right(said, old)
    if is_new and is_old:
        parts = any(set(comparable(one)) <= set(comparable(other)) for one in old for other in new)
        return "new" if parts or list(old) == list(new) else "other"
    return "new" if is_new else "old" if is_old else "other"


def _ask_after(system: RagSystem, edit: Edit, then: ClosedWorld, now: ClosedWorld, asked: int) -> list[Step]:
    before = {one.id: one for one in then.questions}
    present = {one.id: one for one in now.questions}
    steps = []
    for name in _asked_after(edit, asked):
        answer = system.ask(present[name].question)
        said = None if answer.abstained else answer.text
        old = before[name].answers if name in before else ()
        verdict = verdict_of(said, old=old, new=present[name].answers)
        steps.append(Step(kind=edit.kind, document=edit.document, question=name, answer=said, verdict=verdict))
    return steps


def _asked_after(edit: Edit, asked: int) -> list[str]:
    """Ids of the questions to ask after an edit, those about the edited fact itself first."""
    return sorted(edit.questions, key=lambda name: not name.startswith(f"{edit.fact}."))[:asked]


def _right(answer: CitedAnswer, question: Question) -> bool:
    return is_right(None if answer.abstained else answer.text, question.answers)


def _timeless(answer: CitedAnswer) -> CitedAnswer:
    return replace(answer, latency_s=Latency(retrieve=0.0, generate=0.0))
