"""What a hybrid of any kind is trained from: members, questions, and what the members answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import DataError
from ftkit.hybrid.remembering import Remembered
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder
from ftkit.rag.measuring import measure
from ftkit.rag.outcomes import Outcome, outcomes_of
from ftkit.rag.questions import AskedQuestion, question_groups, read_questions, split_questions
from ftkit.recipe import HybridRecipe

ANSWERS = "answers"
TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class Course:
    """Attributes:
    recipe: Resolved.
    folder: Of the run.
    members: Open.
    encoder: The router's; None for a kind without.
    train: Dev questions.
    held: Those that nothing learns from.
    remembered: What goes into a memory; None for a kind without.
    """

    recipe: HybridRecipe
    folder: Path
    members: Mapping[str, RagSystem]
    encoder: Encoder | None
    train: Sequence[AskedQuestion]
    held: Sequence[AskedQuestion]
    remembered: Remembered | None = None

    def outcomes(self, questions: Sequence[AskedQuestion]) -> dict[str, tuple[Outcome, ...]]:
        """What every member answers, under its threshold; answers are kept on the disk as they come."""
        found = {}
        for name, system in self.members.items():
            log.info("%s: %d questions", name, len(questions))
            measured = measure(
                system,
                questions,
                cache=self.folder / ANSWERS / f"{name}.jsonl",
                confidences=system.threshold is not None,
                together=TOGETHER,
            )
            found[name] = outcomes_of(list(zip(questions, measured, strict=True)), system.threshold)
        return found


def hybrid_questions(recipe: HybridRecipe) -> tuple[list[AskedQuestion], list[AskedQuestion]]:
    """Dev questions and held-back ones.

    Raises:
        DataError: They cannot be read, or too few are left to be cross-validated, or to choose a weight by.
    """
    asked = read_questions(recipe.data.train)
    validation = recipe.data.validation
    if isinstance(validation, str):
        train, held = asked, read_questions(validation)
    else:
        train, held = split_questions(asked, validation or 0.0)
    if recipe.kind != "router":
        if not any(one.answers for one in train):
            raise DataError(
                f"{recipe.data.train}: has no answer to choose a weight by",
                fix="Add questions with answers, or lower data.validation.",
            )
    elif len(set(question_groups(train))) < 2:
        raise DataError(
            f"{recipe.data.train}: a router needs questions about two documents at least, which share no "
            "question, to be judged by others than it learnt from",
            fix="Add questions, or lower data.validation.",
        )
    return train, held
