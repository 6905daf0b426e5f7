"""The same questions in other words: does the answer stay?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ftkit.compare.foils import spread
from ftkit.compare.from_answers import style_of
from ftkit.compare.sheet import Sheet, mean_of
from ftkit.evaluate.metrics import squad_words
from ftkit.rag.blame import is_right
from ftkit.rag.cited import CitedAnswer
from ftkit.rag.figures import cluster_of
from ftkit.rag.questions import AskedQuestion

# As people ask: around the question, and as they type it. Search and reader both see these words.
WORDINGS = (
    "{question}",
    "Please answer this question: {question}",
    "I would like to know: {question}",
    "{question} Answer in as few words as possible.",
    "Quick question. {question}",
    "A colleague asks me: {question} What should I reply?",
    "{bare}",
    "hi, {bare} - do you know?",
)


class Answers(Protocol):
    """Whatever answers questions."""

    def answers(self, asked: Sequence[AskedQuestion]) -> list[CitedAnswer]:
        """An answer each."""


def worded(question: str) -> list[str]:
    """A question in eight wordings, the first of which is its own."""
    bare = question.strip().rstrip("?.!").rstrip()
    return [wording.format(question=question.strip(), bare=bare) for wording in WORDINGS]


def measure_wordings(seat: Answers, questions: Sequence[AskedQuestion], count: int) -> Sheet:
    """Ask some questions in eight wordings.

    Returns:
        ``wording_accuracy``, right answers over all wordings; ``wording_worst``, questions answered rightly in every
        wording; ``wording_agreement``, share of the wordings that get the commonest answer; ``wording_style``, the
        same of its form, whatever it says. Who refuses agrees with nobody.
    """
    asked = spread(questions, count)
    every = [replace(one, question=text) for one in asked for text in worded(one.question)]
    said = [None if one.abstained else one.text for one in seat.answers(every)]
    each = [said[at : at + len(WORDINGS)] for at in range(0, len(said), len(WORDINGS))]
    right = [[is_right(text, one.answers) for text in texts] for one, texts in zip(asked, each, strict=True)]
    return Sheet(
        units=tuple(one.id for one in asked),
        clusters=tuple(map(cluster_of, asked)),
        figures={
            "wording_accuracy": mean_of([sum(one) / len(one) for one in right]),
            "wording_worst": mean_of([all(one) for one in right]),
            "wording_agreement": mean_of([_commonest([_plain(text) for text in texts if text]) for texts in each]),
            "wording_style": mean_of([_commonest([style_of(text) for text in texts if text]) for texts in each]),
        },
    )


def _plain(text: str) -> tuple[str, ...]:
    return tuple(squad_words(text))


def _commonest(values: Sequence[object]) -> float:
    return max(Counter(values).values(), default=0) / len(WORDINGS)
