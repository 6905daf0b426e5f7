"""How far a figure would move with other documents: 95 % intervals by resampling whole clusters of questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES, SEED = 10_000, 0
CELLS_AT_ONCE = 1 << 22
Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure that is one sum over another, such as a mean. Both: a number each question."""

    numerators: Floats
    denominators: Floats

    def value(self, weights: Floats) -> Floats:
        """The figure of each row of weights, (rows, questions); NaN where it has none."""
        below = weights @ self.denominators
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(below > 0, weights @ self.numerators / below, np.nan)


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """The smallest value that a share of the questions does not exceed.

    Attributes:
        values: A number each question; NaN where there is none.
        share: From 0 to 1.
    """

    values: Floats
    share: float

    def value(self, weights: Floats) -> Floats:
        """See `Ratio.value`."""
        there = np.flatnonzero(~np.isnan(self.values))
        if not len(there):
            return np.full(len(weights), np.nan)
        order = there[np.argsort(self.values[there], kind="stable")]
        reached = np.cumsum(weights[:, order], axis=1)
        # A hair less than the share: 0.95 of 20 questions is 19, and as a product of floats may come out above it.
        first = (reached >= self.share * reached[:, -1:] * (1 - 1e-12)).argmax(axis=1)
        return np.where(reached[:, -1] > 0, self.values[order][first], np.nan)


@dataclass(frozen=True, kw_only=True)
class RiskArea:
    """The area under the risk-coverage curve; see `ftkit.rag.threshold.area_under`.

    Attributes:
        confidences: A number each question; NaN where there is no answer.
        wrong: 1 where the answer is wrong.
    """

    confidences: Floats
    wrong: Floats

    def value(self, weights: Floats) -> Floats:
        """See `Ratio.value`."""
        answered = np.flatnonzero(~np.isnan(self.confidences))
        order = answered[np.argsort(-self.confidences[answered], kind="stable")]
        if not len(order):
            return np.full(len(weights), np.nan)
        sorted_confidences = self.confidences[order]
        ends = np.flatnonzero(np.append(sorted_confidences[1:] != sorted_confidences[:-1], True))
        given = np.cumsum(weights[:, order], axis=1)[:, ends]
        wrong = np.cumsum(weights[:, order] * self.wrong[order], axis=1)[:, ends]
        steps = np.diff(given, axis=1, prepend=0)
        risk = wrong / np.maximum(given, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((steps * risk).sum(axis=1) / given[:, -1])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure less another over the same questions, so that what both share cancels out."""

    first: Figure
    second: Figure

    def value(self, weights: Floats) -> Floats:
        """See `Ratio.value`."""
        return self.first.value(weights) - self.second.value(weights)


Figure = Ratio | Quantile | RiskArea | Difference


def values_of(figures: Mapping[str, Figure], questions: int) -> dict[str, float | None]:
    """Each figure on the questions as they are; None where it has none."""
    once = np.ones((1, questions))
    return {name: _number(figure.value(once)[0]) for name, figure in figures.items()}


def intervals_of(figures: Mapping[str, Figure], clusters: Sequence[str]) -> dict[str, Interval | None]:
    """The 2.5th and 97.5th percentile of each figure over resampled clusters.

    None where the figure has no value, and where one cluster alone counts in it: nothing is known then of how
    clusters differ. Of few clusters intervals are too narrow.

    Clusters are drawn with replacement, as many as there are, and each brings all its questions: questions about one
    document are right or wrong together, so they are not independent.

    Args:
        figures: By name.
        clusters: Of each question.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, percentile method.
    """
    found: dict[str, Interval | None] = {}
    for name, values in draws_of(figures, clusters).items():
        values = values[~np.isnan(values)] if counting_clusters(figures[name], clusters) > 1 else np.zeros(0)
        low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (0.0, 0.0)
        found[name] = (float(low), float(high)) if len(values) else None
    return found


def counting_clusters(figure: Figure, clusters: Sequence[str]) -> int:
    """Clusters with a unit that counts in a figure; of a difference, in both halves the fewer."""
    if isinstance(figure, Difference):
        return min(counting_clusters(figure.first, clusters), counting_clusters(figure.second, clusters))
    if isinstance(figure, Ratio):
        return len({clusters[int(at)] for at in np.flatnonzero(figure.denominators)})
    return len(set(clusters))


def draws_of(figures: Mapping[str, Figure], clusters: Sequence[str]) -> dict[str, Floats]:
    """Each figure on every resample, (resamples,); NaN where it has no value. Empty where there is one cluster."""
    if len(set(clusters)) < 2:
        return {name: np.zeros(0) for name in figures}
    drawn: dict[str, list[Floats]] = {name: [] for name in figures}
    for weights in _weights(clusters):
        for name, figure in figures.items():
            drawn[name].append(figure.value(weights))
    return {name: np.concatenate(pieces) for name, pieces in drawn.items()}


def _weights(clusters: Sequence[str]) -> Iterator[Floats]:
    """How often each question is drawn, (resamples, questions), some resamples at a time."""
    number = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    cluster_of = np.array([number[name] for name in clusters])
    draw, count = np.random.default_rng(SEED), len(number)
    rows = max(1, CELLS_AT_ONCE // len(clusters))
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        picked = draw.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(picked.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, cluster_of].astype(np.float64)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
