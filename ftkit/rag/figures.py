"""The figures of an evaluation, each a sum over another or a quantile, so that one bootstrap serves all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ftkit.rag.blame import BLAMES
from ftkit.rag.intervals import Figure, Floats, Quantile, Ratio, RiskArea
from ftkit.rag.outcomes import Outcome, confidences_of
from ftkit.rag.questions import AskedQuestion

LATENCIES = (("p50", 0.5), ("p95", 0.95))


def figures_of(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    """Every figure by name; ``latency_s.retrieve.p50`` stands within others."""
    answered = _answer_figures(outcomes)
    first = {name: answered.pop(name) for name in ("exact_match", "f1", "nll")}
    return {
        **first,
        **_search_figures(outcomes),
        **answered,
        **_error_figures(outcomes),
        **_latency_figures(outcomes),
    }


def cluster_of(question: AskedQuestion) -> str:
    """The last document that the answer needs, which states it; a question without one stands for itself."""
    return f"document {question.documents[-1]}" if question.documents else f"question {question.id}"


def _answer_figures(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    every = np.ones(len(outcomes))
    given = _array(float(outcome.text is not None) for outcome in outcomes)
    return {
        "exact_match": Ratio(numerators=_array(one.exact_match for one in outcomes), denominators=every),
        "f1": Ratio(numerators=_array(one.f1 for one in outcomes), denominators=every),
        "nll": Ratio(
            numerators=_array(one.measured.nll or 0.0 for one in outcomes),
            denominators=_array(float(one.measured.nll_tokens) for one in outcomes),
        ),
        "coverage": Ratio(numerators=given, denominators=every),
        "risk": Ratio(
            numerators=_array(float(one.text is not None and not one.right) for one in outcomes), denominators=given
        ),
    }


def _search_figures(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    """Over the questions that name documents.

    Recall is 1 where a passage of each of them is among the first hits; of the reciprocal ranks the best counts.
    Answer recall is 1 where one of these passages states the answer: a document may be found by another part of it.
    """
    named = _array(float(bool(one.question.documents)) for one in outcomes)

    def recall(depth: int) -> Ratio:
        found = (
            bool(one.measured.ranks) and all(rank is not None and rank <= depth for rank in one.measured.ranks)
            for one in outcomes
        )
        return Ratio(numerators=_array(float(one) for one in found), denominators=named)

    looked = _array(float(one.measured.answer_rank >= 0) for one in outcomes)

    def stated(depth: int) -> Ratio:
        return Ratio(
            numerators=_array(float(1 <= one.measured.answer_rank <= depth) for one in outcomes), denominators=looked
        )

    best = (max((1 / rank for rank in one.measured.ranks if rank is not None), default=0.0) for one in outcomes)
    return {
        "recall_at_1": recall(1),
        "recall_at_5": recall(5),
        "mrr": Ratio(numerators=_array(best), denominators=named),
        "answer_recall_at_1": stated(1),
        "answer_recall_at_5": stated(5),
    }


def _error_figures(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    every = np.ones(len(outcomes))
    confidences, right = confidences_of(outcomes)
    figures: dict[str, Figure] = {
        f"blame_percent.{name}": Ratio(
            numerators=_array(100.0 * (one.blame == name) for one in outcomes), denominators=every
        )
        for name in BLAMES
    }
    area = RiskArea(
        confidences=_array(np.nan if one is None else one for one in confidences),
        wrong=_array(float(not one) for one in right),
    )
    return {**figures, "risk_coverage_area": area}


def _latency_figures(outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    seconds = {
        "retrieve": _array(one.measured.retrieve_s for one in outcomes),
        "generate": _array(np.nan if (taken := one.measured.generate_s) is None else taken for one in outcomes),
    }
    return {
        f"latency_s.{step}.{name}": Quantile(values=values, share=share)
        for step, values in seconds.items()
        for name, share in LATENCIES
    }


def _array(values: Any) -> Floats:
    return np.array(list(values), dtype=np.float64)
