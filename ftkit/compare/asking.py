"""Every system is asked the test questions."""

from __future__ import annotations

from pathlib import Path

from ftkit.compare.seat import TOGETHER, Seat
from ftkit.rag.evaluation import Evaluation, evaluate_rag
from ftkit.rag.questions import AskedQuestion


def ask_all(seat: Seat, questions: tuple[AskedQuestion, ...], cache: Path) -> Evaluation:
    """Ask a system every question.

    Args:
        seat: The system.
        questions: Of the test.
        cache: Of its answers; see `ftkit.rag.measuring.measure`.
    """
    return evaluate_rag(
        seat.system, questions, cache=cache, generator=seat.arm.label, finder=seat.finder, together=TOGETHER
    )
