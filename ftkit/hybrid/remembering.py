"""What a hybrid with a memory remembers, and which questions are left to choose its weight by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftkit.errors import DataError, Problem, UsageError
from ftkit.files import sha256_json
from ftkit.hybrid.combining import pairs_of
from ftkit.hybrid.remembered import Pair
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.beginning import leaked_questions
from ftkit.rag.corpus import read_documents
from ftkit.rag.questions import AskedQuestion, read_questions, split_questions
from ftkit.recipe import HybridRecipe


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What goes into a memory.

    Attributes:
        texts: Each once.
        pairs: Answered questions, with the passages that the model is shown.
        dev: Questions that are not among them, in whatever case and spaces.
    """

    texts: tuple[str, ...]
    pairs: tuple[Pair, ...]
    dev: tuple[AskedQuestion, ...]

    @property
    def contents(self) -> list[str | Pair]:
        """As a datastore takes them."""
        return [*self.texts, *self.pairs]

    @property
    def sha256(self) -> str:
        """Of all that is remembered."""
        return sha256_json([self.texts, [[one.question, one.answer, one.passages] for one in self.pairs]])


def remembered_of(
    recipe: HybridRecipe,
    name: str,
    system: RagSystem,
    train: Sequence[AskedQuestion],
    held: Sequence[AskedQuestion],
) -> Remembered:
    """Read what the recipe wants remembered.

    Args:
        recipe: With ``kind: memory``.
        name: Of its member.
        system: That member, open.
        train: The dev questions.
        held: Those that nothing learns from: none of them is remembered.

    Raises:
        UsageError: The member's own documents are to be remembered, and it has none.
        DataError: Sources cannot be read, or answers that are to choose the weight, or to measure it, would be
            remembered.
    """
    texts = _texts(recipe, name, system)
    asked, dev = _sides(recipe, train, held)
    hits = (lambda one: system.retrieve(one.question, system.passages)) if system.passages else None
    return Remembered(texts=texts, pairs=tuple(pairs_of(asked, hits)), dev=tuple(dev))


def _texts(recipe: HybridRecipe, name: str, system: RagSystem) -> tuple[str, ...]:
    sources = recipe.memory.texts
    if sources is None:
        own = tuple(sorted({one.content for one in system.index.all_passages()}))
        if not own:
            problem = Problem(
                where=f"members.{name}",
                what="has no documents of its own to remember",
                fix="Name some under memory.texts, or put [] there to remember answers alone.",
            )
            raise UsageError([problem])
        return own
    if not sources:
        return ()
    return tuple(dict.fromkeys(one.text for one in read_documents(sources).documents))


def _sides(
    recipe: HybridRecipe, train: Sequence[AskedQuestion], held: Sequence[AskedQuestion]
) -> tuple[Sequence[AskedQuestion], Sequence[AskedQuestion]]:
    """Questions to remember, and those that choose: a weight chosen by remembered answers would say all is known."""
    questions = recipe.memory.questions
    if questions is False:
        return (), train
    if isinstance(questions, str):
        asked = read_questions(questions)
        _require_apart(questions, asked, train, held)
        return asked, train
    # A fraction that is held back has taken the lowest places of the same draw (see `split_questions`).
    taken = recipe.data.validation if isinstance(recipe.data.validation, float) else 0.0
    drawn, half = split_questions(train, (1 + taken) / 2)
    # The draw is by documents: two of them may be asked about in the same words.
    asked = _without(half, held, "not remembered, as they are held back")
    dev = _without(drawn, asked, "no part of choosing the weight, as they are remembered")
    for side, what in ((asked, "to remember"), (dev, "to choose the weight by")):
        if not any(one.answers for one in side):
            raise DataError(
                f"{recipe.data.train}: with memory.questions: true half of it, by document, is remembered, and no "
                f"answer is left {what}",
                fix="Add questions about other documents, or name a file under memory.questions, or put false there.",
            )
    return asked, dev


def _require_apart(
    path: str, asked: Sequence[AskedQuestion], train: Sequence[AskedQuestion], held: Sequence[AskedQuestion]
) -> None:
    sides = (
        (train, "in data.train too, so the weight would be chosen by what is remembered"),
        (held, "held back too (data.validation), so what is remembered would be measured"),
    )
    problems = [
        Problem(
            where=path,
            what=f"{len(leaks)} of its questions are {why}; the first: {leaks[0].question!r}",
            fix="Take them out of one of the two, or set memory.questions to true.",
        )
        for side, why in sides
        if (leaks := leaked_questions(asked, side))
    ]
    if problems:
        raise DataError(problems)


def _without(
    questions: Sequence[AskedQuestion], others: Sequence[AskedQuestion], therefore: str
) -> list[AskedQuestion]:
    """Questions that are not among others, in the same words but for case and spaces."""
    leaks = {one.id for one in leaked_questions(others, questions)}
    if leaks:
        log.info("%d questions are %s", len(leaks), therefore)
    return [one for one in questions if one.id not in leaks]
