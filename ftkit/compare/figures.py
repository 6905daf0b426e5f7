"""The figures of a system over its seeds, question by question, so that any two can be paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ftkit.compare.sheet import Sheet, floats
from ftkit.rag.blame import BLAMES
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.figures import cluster_of
from ftkit.rag.intervals import Figure, Floats, Interval, Ratio, intervals_of, values_of
from ftkit.rag.outcomes import Outcome

MEASURES = (
    "exact_match",
    "f1",
    "nll",
    "recall_at_1",
    "recall_at_5",
    "mrr",
    "answer_recall_at_1",
    "answer_recall_at_5",
    "coverage",
    "risk",
)
LATENCIES = ("latency_s.retrieve.p50", "latency_s.retrieve.p95", "latency_s.generate.p50", "latency_s.generate.p95")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a system did.

    Attributes:
        name: Of the system, with its variant.
        evaluations: One a seed, over the same questions in the same order.
        sheets: What else was measured, by part, one a seed; a seed that was not measured in a part is left out.
        counted: Figures without chance in them.
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    sheets: Mapping[str, tuple[Sheet, ...]] = field(default_factory=dict)
    counted: Mapping[str, float] = field(default_factory=dict)

    @property
    def questions(self) -> int:
        """How many."""
        return len(self.evaluations[0].outcomes)

    @cached_property
    def clusters(self) -> list[str]:
        """What each question is resampled with: the document that states its answer."""
        return [cluster_of(outcome.question) for outcome in self.evaluations[0].outcomes]

    @property
    def _retrieves(self) -> bool:
        """Whether passages are searched for every question; a router may send some where there are none."""
        given = [bool(outcome.measured.citations) for one in self.evaluations for outcome in one.outcomes]
        return all(given) if "router" in self.evaluations[0].settings else any(given)

    @cached_property
    def _parts(self) -> list[tuple[list[str], list[str], dict[str, Figure]]]:
        """Figures with the units that they are over, and what these are resampled with.

        Ratios are means over the seeds; latencies are the first's.
        """
        names = (*MEASURES, *(f"blame_percent.{name}" for name in BLAMES))
        found: dict[str, Figure] = {name: _mean([one.figures[name] for one in self.evaluations]) for name in names}
        if not self._retrieves:  # a system without passages has no recall, and 0 would look like a bad one
            for name in [name for name in found if "recall" in name or name == "mrr"]:
                del found[name]
        found |= {name: self.evaluations[0].figures[name] for name in LATENCIES}
        asked = [outcome.question.id for outcome in self.evaluations[0].outcomes]
        parts = [(asked, self.clusters, found)]
        for sheets in self.sheets.values():
            shared = [name for name in sheets[0].figures if all(name in one.figures for one in sheets)]
            figures: dict[str, Figure] = {name: _mean([one.figures[name] for one in sheets]) for name in shared}
            parts.append((list(sheets[0].units), list(sheets[0].clusters), figures))
        return parts

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """All of them."""
        return {name: figure for _, _, figures in self._parts for name, figure in figures.items()}

    def units_of(self, name: str) -> list[str]:
        """What a figure is over."""
        return next(units for units, _, figures in self._parts if name in figures)

    def clusters_of(self, name: str) -> list[str]:
        """What each unit of a figure is resampled with."""
        return next(clusters for _, clusters, figures in self._parts if name in figures)

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Each figure's value."""
        found: dict[str, float | None] = {}
        for _, clusters, figures in self._parts:
            found |= values_of(figures, len(clusters))
        return found

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """Each figure's 95 % interval over documents; seeds are what they are."""
        found: dict[str, Interval | None] = {}
        for _, clusters, figures in self._parts:
            found |= intervals_of(figures, clusters)
        return found

    def over_seeds(self, name: str) -> list[float | None]:
        """A figure's value with each seed."""
        if name in self.evaluations[0].values:
            return [one.values[name] for one in self.evaluations]
        sheets = next(some for some in self.sheets.values() if name in some[0].figures)
        return [values_of({name: one.figures[name]}, len(one.clusters))[name] for one in sheets]

    def right(self, seed: int = 0) -> list[bool]:
        """Whether each answer of one seed matches exactly."""
        return [outcome.exact_match == 1.0 for outcome in self.evaluations[seed].outcomes]

    def risk_at(self, coverage: float) -> Ratio:
        """Share of wrong answers where each seed gives only its surest ones: at most that share of the questions."""
        return _mean([_surest(one, coverage) for one in self.evaluations])

    @property
    def least_coverage(self) -> float:
        """Of its seeds."""
        return min(one.values["coverage"] or 0.0 for one in self.evaluations)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """``{figure: {value, low, high, seeds}}``."""
        found = {name: self._figure(name) for name in self.figures if self.values[name] is not None}
        return found | {name: {"value": value, "low": None, "high": None} for name, value in self.counted.items()}

    def _figure(self, name: str) -> dict[str, Any]:
        between = self.intervals[name]
        low, high = (None, None) if between is None else between
        found: dict[str, Any] = {"value": self.values[name], "low": low, "high": high}
        if len(self.evaluations) > 1 and name not in LATENCIES:
            found["seeds"] = self.over_seeds(name)
        return found


def _surest(evaluation: Evaluation, coverage: float) -> Ratio:
    outcomes = evaluation.outcomes
    given = [at for at, one in enumerate(outcomes) if one.text is not None]
    # Equal confidences stand in the order of the questions: which of them are given is the same for every system.
    surest = sorted(given, key=lambda at: -_confidence(outcomes[at]))
    # A hair more than the product: 0.8 of 15 questions is 12, and as a product of floats may come out below it.
    chosen = set(surest[: int(coverage * len(outcomes) + 1e-9)])
    return Ratio(
        numerators=floats(at in chosen and not one.right for at, one in enumerate(outcomes)),
        denominators=floats(at in chosen for at in range(len(outcomes))),
    )


def _confidence(outcome: Outcome) -> float:
    known = outcome.measured.confidence
    return -math.inf if known is None else known


def _mean(figures: Sequence[Figure]) -> Ratio:
    ratios = [figure for figure in figures if isinstance(figure, Ratio)]
    assert len(ratios) == len(figures), "all of these are ratios"
    return Ratio(
        numerators=_average([one.numerators for one in ratios]),
        denominators=_average([one.denominators for one in ratios]),
    )


def _average(arrays: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(arrays, axis=0), dtype=np.float64)
