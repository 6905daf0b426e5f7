"""Whether one system is better than another: paired over the same questions, corrected for how often was asked.

Source:
    Efron and Tibshirani 1993 (bootstrap); McNemar 1947 (exact form: a sign test on the questions that the two answer
    differently); Holm 1979 (step-down correction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ftkit.compare.figures import Standing
from ftkit.rag.intervals import RESAMPLES, Difference, Floats, counting_clusters, draws_of, values_of
from ftkit.recipe.comparing import ContrastSection, is_counted, lower_is_better

LEVEL = 0.05
Verdict = Literal["a is better", "b is better", "undetermined"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two systems on one figure.

    Attributes:
        a: The system expected to be better.
        b: The other.
        metric: The figure.
        difference: a - b; None where one of them has no such figure.
        low: 2.5th percentile of the difference over resampled documents.
        high: 97.5th.
        p: Two-sided, before correction.
        p_holm: After it.
        documents: That have a part in the figure, and are resampled; None of ``counted``. With n of them no p-value
            is below 2 to the power of 1 - n.
        test: ``bootstrap``, ``mcnemar``, ``counted`` of figures without chance in them, or ``none``.
    """

    a: str
    b: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    test: str
    documents: int | None = None

    @property
    def verdict(self) -> Verdict:
        """What may be said at a family-wise level of 5 %."""
        if self.difference is None or not self.difference:
            return "undetermined"
        if self.test != "counted" and (self.p_holm is None or self.p_holm > LEVEL):
            return "undetermined"
        return "a is better" if (self.difference < 0) == lower_is_better(self.metric) else "b is better"


def contrasts_of(standings: dict[str, Standing], asked: Sequence[ContrastSection]) -> list[Contrast]:
    """Test what was asked for before the run, as far as it is measured, and correct for all of it together."""
    known = [one for one in asked if {one.a, one.b} <= set(standings)]
    found = [contrast_of(standings[one.a], standings[one.b], one.metric) for one in known]
    return holm(found, family=sum(not is_counted(one.metric) for one in asked))


def holm(contrasts: Sequence[Contrast], *, family: int | None = None) -> list[Contrast]:
    """The same with corrected p-values: the smallest times their number, the next times one less, never falling.

    Args:
        contrasts: Those that are known so far.
        family: How many were declared, so that a verdict does not fall when the rest is measured; None for these.
    """
    tested = sorted((one for one in contrasts if one.p is not None), key=lambda one: one.p or 0.0)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, one in enumerate(tested):
        highest = max(highest, min(1.0, (max(len(tested), family or 0) - rank) * (one.p or 0.0)))
        corrected[id(one)] = highest
    return [replace(one, p_holm=corrected.get(id(one))) for one in contrasts]


def contrast_of(a: Standing, b: Standing, metric: str, *, margin: float = 0.0) -> Contrast:
    """One pair, not corrected.

    Args:
        a: The system expected to be better.
        b: The other.
        metric: The figure.
        margin: The p-value is of being better by just so much; 0: of no difference.
    """
    if is_counted(metric):
        return _counted(a, b, metric)
    pair = _pair(a, b, metric)
    if pair is None:
        return _untested(a, b, metric)
    figure, clusters = pair
    difference = values_of({metric: figure}, len(clusters))[metric]
    drawn, counting = _drawn(figure, clusters)
    low, high = (float(one) for one in np.percentile(drawn, [2.5, 97.5])) if len(drawn) else (None, None)
    test, p = "bootstrap", two_sided(drawn + margin if lower_is_better(metric) else drawn - margin)
    if metric == "exact_match" and not margin and len(a.evaluations) == len(b.evaluations) == 1:
        test, p = "mcnemar", mcnemar(a.right(), b.right())
    return Contrast(
        a=a.name, b=b.name, metric=metric, difference=difference, low=low, high=high, p=_floored(p, counting),
        p_holm=None, test=test, documents=counting,
    )  # fmt: skip


def equivalence_of(a: Standing, b: Standing, metric: str, margin: float) -> Contrast:
    """The same, with the p-value of differing by less than a margin; where they differ by more, of that.

    Source:
        Schuirmann 1987 (two one-sided tests), on the bootstrap's draws.
    """
    found = contrast_of(a, b, metric)
    pair = None if is_counted(metric) else _pair(a, b, metric)
    if pair is None or found.difference is None:
        return found
    drawn, counting = _drawn(*pair)
    if not len(drawn):
        return found
    above, below = float((drawn >= margin).mean()), float((drawn <= -margin).mean())
    one_sided = max(above, below) if abs(found.difference) < margin else min(1 - above, 1 - below)
    p = min(1.0, 2 * max(one_sided, 1 / RESAMPLES))
    return replace(found, p=_floored(p, counting), test="bootstrap")


def _drawn(figure: Difference, clusters: list[str]) -> tuple[Floats, int]:
    """The difference on every resample, none where too few clusters count; and how many count."""
    counting = counting_clusters(figure, clusters)
    drawn = draws_of({"": figure}, clusters)[""]
    return (drawn[~np.isnan(drawn)] if counting > 1 else np.zeros(0)), counting


def _floored(p: float | None, counting: int) -> float | None:
    """So few clusters can all fall on one side by chance: a bootstrap of them knows only what it has seen."""
    return None if p is None else min(1.0, max(p, 2.0 ** (1 - counting)))


def _pair(a: Standing, b: Standing, metric: str) -> tuple[Difference, list[str]] | None:
    """a - b over the same units, and what each is resampled with; None where they have no such figure in common."""
    if metric == "risk_at_equal_coverage":
        coverage = min(a.least_coverage, b.least_coverage)
        return Difference(first=a.risk_at(coverage), second=b.risk_at(coverage)), a.clusters
    if metric not in a.figures or metric not in b.figures or a.units_of(metric) != b.units_of(metric):
        return None
    return Difference(first=a.figures[metric], second=b.figures[metric]), a.clusters_of(metric)


def _counted(a: Standing, b: Standing, metric: str) -> Contrast:
    if metric not in a.counted or metric not in b.counted:
        return _untested(a, b, metric)
    difference = a.counted[metric] - b.counted[metric]
    return Contrast(
        a=a.name, b=b.name, metric=metric, difference=difference, low=None, high=None, p=None, p_holm=None,
        test="counted",
    )  # fmt: skip


def _untested(a: Standing, b: Standing, metric: str) -> Contrast:
    return Contrast(
        a=a.name, b=b.name, metric=metric, difference=None, low=None, high=None, p=None, p_holm=None, test="none"
    )


def two_sided(drawn: Floats) -> float | None:
    """Twice the share of resamples on the other side of zero; never less than their number can tell."""
    if not len(drawn):
        return None
    below, above = float((drawn <= 0).mean()), float((drawn >= 0).mean())
    return min(1.0, 2 * max(min(below, above), 1 / RESAMPLES))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided p-value that two systems are right equally often, from the questions where they differ."""
    gained = sum(one and not other for one, other in zip(first, second, strict=True))
    lost = sum(other and not one for one, other in zip(first, second, strict=True))
    differing = gained + lost
    if not differing:
        return 1.0
    tail = sum(math.comb(differing, count) for count in range(min(gained, lost) + 1)) / 2**differing
    return float(min(1.0, 2 * tail))
