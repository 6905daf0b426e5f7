"""The figures of a system over its seeds, question by question, so that any two can be paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ftkit.rag.blame import BLAMES
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.figures import cluster_of
from ftkit.rag.intervals import Figure, Floats, Interval, Ratio, intervals_of, values_of

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
    """What a system did on the test questions.

    Attributes:
        name: Of the system.
        evaluations: One a seed, over the same questions in the same order.
    """

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def questions(self) -> int:
        """How many."""
        return len(self.evaluations[0].outcomes)

    @cached_property
    def clusters(self) -> list[str]:
        """What each question is resampled with: the document that states its answer."""
        return [cluster_of(outcome.question) for outcome in self.evaluations[0].outcomes]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Ratios are means over the seeds; latencies are those of the first."""
        names = (*MEASURES, *(f"blame_percent.{name}" for name in BLAMES))
        found: dict[str, Figure] = {name: _mean([one.figures[name] for one in self.evaluations]) for name in names}
        retrieves = any(outcome.measured.citations for one in self.evaluations for outcome in one.outcomes)
        if not retrieves:  # a system without passages has no recall, and 0 would look like a bad one
            for name in [name for name in found if "recall" in name or name == "mrr"]:
                del found[name]
        return found | {name: self.evaluations[0].figures[name] for name in LATENCIES}

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Each figure's value."""
        return values_of(self.figures, self.questions)

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """Each figure's 95 % interval over documents; seeds are what they are."""
        return intervals_of(self.figures, self.clusters)

    def over_seeds(self, name: str) -> list[float | None]:
        """A figure's value with each seed."""
        return [one.values[name] for one in self.evaluations]

    def right(self, seed: int = 0) -> list[bool]:
        """Whether each answer of one seed matches exactly."""
        return [outcome.exact_match == 1.0 for outcome in self.evaluations[seed].outcomes]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """``{figure: {value, low, high, seeds}}``."""
        return {name: self._figure(name) for name in self.figures if self.values[name] is not None}

    def _figure(self, name: str) -> dict[str, Any]:
        between = self.intervals[name]
        low, high = (None, None) if between is None else between
        found: dict[str, Any] = {"value": self.values[name], "low": low, "high": high}
        if len(self.evaluations) > 1 and name not in LATENCIES:
            found["seeds"] = self.over_seeds(name)
        return found


def _mean(figures: Sequence[Figure]) -> Ratio:
    ratios = [figure for figure in figures if isinstance(figure, Ratio)]
    assert len(ratios) == len(figures), "all of these are ratios"
    return Ratio(
        numerators=_average([one.numerators for one in ratios]),
        denominators=_average([one.denominators for one in ratios]),
    )


def _average(arrays: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(arrays, axis=0), dtype=np.float64)
