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
from ftkit.rag.intervals import RESAMPLES, Difference, Floats, draws_of, values_of
from ftkit.recipe.compare import LOWER_IS_BETTER, ContrastSection

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
        test: ``bootstrap`` or ``mcnemar``.
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

    @property
    def verdict(self) -> Verdict:
        """What may be said at a family-wise level of 5 %."""
        if self.difference is None or self.p_holm is None or self.p_holm > LEVEL or not self.difference:
            return "undetermined"
        lower_wins = self.metric in LOWER_IS_BETTER
        return "a is better" if (self.difference < 0) == lower_wins else "b is better"


def contrasts_of(standings: dict[str, Standing], asked: Sequence[ContrastSection]) -> list[Contrast]:
    """Test what was asked for before the run, and correct for all of it together."""
    found = [_contrast(standings[one.a], standings[one.b], one.metric) for one in asked]
    return holm(found)


def holm(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The same with corrected p-values: the smallest times their number, the next times one less, never falling."""
    tested = sorted((one for one in contrasts if one.p is not None), key=lambda one: one.p or 0.0)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, one in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * (one.p or 0.0)))
        corrected[id(one)] = highest
    return [replace(one, p_holm=corrected.get(id(one))) for one in contrasts]


def _contrast(a: Standing, b: Standing, metric: str) -> Contrast:
    if metric not in a.figures or metric not in b.figures:
        return Contrast(
            a=a.name, b=b.name, metric=metric, difference=None, low=None, high=None, p=None, p_holm=None, test="none"
        )
    figure = Difference(first=a.figures[metric], second=b.figures[metric])
    difference = values_of({metric: figure}, a.questions)[metric]
    drawn = draws_of({metric: figure}, a.clusters)[metric]
    drawn = drawn[~np.isnan(drawn)]
    test, p = "bootstrap", two_sided(drawn)
    if metric == "exact_match" and len(a.evaluations) == len(b.evaluations) == 1:
        test, p = "mcnemar", mcnemar(a.right(), b.right())
    low, high = (float(one) for one in np.percentile(drawn, [2.5, 97.5])) if len(drawn) else (None, None)
    return Contrast(
        a=a.name, b=b.name, metric=metric, difference=difference, low=low, high=high, p=p, p_holm=None, test=test
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
