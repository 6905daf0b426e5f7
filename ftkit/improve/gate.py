"""Whether a candidate takes the place of what is in service: paired on the frozen test, and by what it forgot.

Source:
    Efron and Tibshirani 1993 (bootstrap); McNemar 1947, exact form. Two-sided, as in `ftkit.compare.contrasts`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ftkit.compare.contrasts import mcnemar, two_sided
from ftkit.errors import UsageError
from ftkit.improve.asking import Asked
from ftkit.improve.frozen import Frozen
from ftkit.rag.intervals import Difference, Floats, Ratio, draws_of, values_of
from ftkit.recipe.improve import GateSection


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found.

    Attributes:
        promoted: Whether the candidate takes the place.
        because: Why, or why not, in words.
        metric: That was compared.
        current: Its value of what is in service.
        candidate: The same of the candidate.
        gain: By how much the candidate is better; negative where it is worse.
        low: 2.5th percentile of the gain over resampled questions.
        high: 97.5th.
        p: Two-sided, that the gain is not the margin.
        test: ``bootstrap``, or ``mcnemar`` for exact match without a margin.
        forgotten: Bits per byte by which the candidate is worse on general text; None where nobody asked.
        questions: Of the test.
    """

    promoted: bool
    because: str
    metric: str
    current: float
    candidate: float
    gain: float
    low: float
    high: float
    p: float
    test: str
    forgotten: float | None
    questions: int

    def to_dict(self) -> dict[str, Any]:
        """As written to gate.json."""
        return asdict(self)


def judge(current: Asked, candidate: Asked, frozen: Frozen, gate: GateSection) -> Verdict:
    """Hold a candidate against what is in service.

    Raises:
        UsageError: Their likelihoods are of different tokens, so they cannot be compared.
    """
    if current.weights != candidate.weights:
        raise UsageError(
            "what is in service and the candidate cut the test's answers into different tokens, so nats a token are "
            "of different things",
            fix="Set gate.metric to exact_match or f1.",
        )
    sign = -1.0 if gate.metric == "nll" else 1.0
    figures = {
        "current": Ratio(numerators=np.array(current.scores), denominators=np.array(current.weights)),
        "candidate": Ratio(numerators=np.array(candidate.scores), denominators=np.array(candidate.weights)),
    }
    values = values_of(figures, len(frozen.questions))
    difference = Difference(first=figures["candidate"], second=figures["current"])
    clusters = [one.cluster for one in frozen.questions]
    gains = sign * draws_of({"gain": difference}, clusters)["gain"]
    if not len(gains):
        raise UsageError(
            "all questions of the test are about one document: that says nothing of others", fix="Add some."
        )
    before, after = values["current"], values["candidate"]
    assert before is not None and after is not None, "every question has a weight"
    gain = sign * (after - before)
    test, p = _tested(current, candidate, gains, gate, clustered=len(set(clusters)) < len(clusters))
    lost = None
    if current.bits_per_byte is not None and candidate.bits_per_byte is not None:
        lost = candidate.bits_per_byte - current.bits_per_byte
    promoted, because = _decision(gain, p, lost, gate)
    low, high = (float(one) for one in np.percentile(gains, [2.5, 97.5]))
    return Verdict(
        promoted=promoted, because=because, metric=gate.metric, current=before, candidate=after, gain=gain, low=low,
        high=high, p=p, test=test, forgotten=lost, questions=len(frozen.questions),
    )  # fmt: skip


def _tested(
    current: Asked, candidate: Asked, gains: Floats, gate: GateSection, *, clustered: bool
) -> tuple[str, float]:
    """The name of the test and its p-value."""
    if gate.metric == "exact_match" and gate.margin == 0 and not clustered:
        return "mcnemar", mcnemar([one == 1 for one in candidate.scores], [one == 1 for one in current.scores])
    p = two_sided(gains - gate.margin)
    assert p is not None, "there are resamples"
    return "bootstrap", p


def _decision(gain: float, p: float, lost: float | None, gate: GateSection) -> tuple[bool, str]:
    """Whether to promote, and the first reason that speaks against it."""
    if gain <= gate.margin:
        than = f"by more than {gate.margin:g}" if gate.margin else "than what is in service"
        return False, f"it is not better {than} ({gate.metric}: {gain:+.4g})"
    if p > gate.level:
        return False, f"its gain of {gain:.4g} may be chance (p {p:.2g}, level {gate.level:g})"
    if lost is not None and lost > gate.max_forgetting:
        return False, f"it forgot {lost:.4g} bits per byte, and {gate.max_forgetting:g} are allowed"
    return True, f"it is better by {gain:.4g} ({gate.metric}, p {p:.2g})"
