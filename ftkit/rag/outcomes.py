"""What a measured answer is worth under a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftkit.evaluate.metrics import f1, squad_words
from ftkit.rag.answering import is_withheld
from ftkit.rag.blame import Blame, blame, is_right
from ftkit.rag.measured import Measured
from ftkit.rag.questions import AskedQuestion


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One question, what the system did with it, and what that is worth.

    Attributes:
        question: As asked.
        measured: Before any threshold.
        text: The answer that is given; None where the system abstains.
        blame: The step that lost it, or ``correct``.
        exact_match: 1 or 0, in SQuAD's normalisation; without a right answer, 1 where the system abstains.
        f1: The best over the right answers; without one, as ``exact_match``.
    """

    question: AskedQuestion
    measured: Measured
    text: str | None
    blame: Blame
    exact_match: float
    f1: float

    @property
    def right(self) -> bool:
        """Whether nothing is to blame; see `ftkit.rag.blame.is_right`."""
        return self.blame == "correct"

    def to_dict(self) -> dict[str, Any]:
        """As in ``answers`` of ``--json``."""
        measured = self.measured
        return {
            "id": self.question.id,
            "question": self.question.question,
            "answers": list(self.question.answers),
            "text": self.text,
            "blame": self.blame,
            "exact_match": self.exact_match,
            "f1": self.f1,
            "nll": None if measured.nll is None else measured.nll / measured.nll_tokens,
            "confidence": measured.confidence,
            "ranks": dict(zip(self.question.documents, measured.ranks, strict=True)),
            "citations": [asdict(cited) for cited in measured.citations],
        }


def outcomes_of(pairs: Sequence[tuple[AskedQuestion, Measured]], threshold: float | None) -> tuple[Outcome, ...]:
    """Score answers; those of less confidence than the threshold are not given."""
    return tuple(_outcome(question, measured, threshold) for question, measured in pairs)


def _outcome(question: AskedQuestion, measured: Measured, threshold: float | None) -> Outcome:
    text = None if is_withheld(measured.confidence, threshold) else measured.said
    return Outcome(
        question=question,
        measured=measured,
        text=text,
        blame=blame(question.answers, text, measured.evidence),
        exact_match=_best(lambda said, answer: float(squad_words(said) == squad_words(answer)), text, question),
        f1=_best(f1, text, question),
    )


def _best(score: Callable[[str, str], float], text: str | None, question: AskedQuestion) -> float:
    if text is None or not question.answers:
        return float(text is None and not question.answers)
    return max(score(text, answer) for answer in question.answers)


def confidences_of(outcomes: Sequence[Outcome]) -> tuple[list[float | None], list[bool]]:
    """What a threshold is chosen from: every answer that the generator gave, withheld or not."""
    right = [is_right(outcome.measured.said, outcome.question.answers) for outcome in outcomes]
    return [outcome.measured.confidence for outcome in outcomes], right
