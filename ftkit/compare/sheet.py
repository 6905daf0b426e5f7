"""Figures over one set of units - questions, edits, texts - so that any two systems can be paired on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftkit.rag.intervals import Floats, Ratio


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What one part of a comparison found of one system with one seed.

    Attributes:
        units: Names of the units; the same for all systems, in the same order, or they cannot be paired.
        clusters: What each unit is resampled with.
        figures: Ratios over the units.
        counted: What is no ratio: seconds, operations.
    """

    units: tuple[str, ...]
    clusters: tuple[str, ...]
    figures: Mapping[str, Ratio]
    counted: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "units": list(self.units),
            "clusters": list(self.clusters),
            "figures": {
                name: {"numerators": one.numerators.tolist(), "denominators": one.denominators.tolist()}
                for name, one in self.figures.items()
            },
            "counted": dict(self.counted),
        }


def sheet_from(values: Mapping[str, Any]) -> Sheet:
    """The same from `Sheet.to_dict`."""
    return Sheet(
        units=tuple(values["units"]),
        clusters=tuple(values["clusters"]),
        figures={
            name: Ratio(numerators=floats(one["numerators"]), denominators=floats(one["denominators"]))
            for name, one in values["figures"].items()
        },
        counted=values["counted"],
    )


def floats(values: Sequence[Any] | Any) -> Floats:
    """Numbers or truth values as the figures take them."""
    return np.array([float(one) for one in values], dtype=np.float64)


def mean_of(values: Sequence[Any] | Any, where: Sequence[Any] | Any | None = None) -> Ratio:
    """The mean of one value a unit.

    Args:
        values: A number each.
        where: Whether the unit counts; None for all.
    """
    numbers = floats(values)
    counts = np.ones(len(numbers)) if where is None else floats(where)
    return Ratio(numerators=numbers * counts, denominators=counts)
