"""Enhancement rung by rung: a step is taken only where it beats what stands, on the same frozen questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.compare.contrasts import Contrast, contrast_of
from ftkit.compare.figures import Standing
from ftkit.recipe import StagedSection
from ftkit.recipe.comparing import lower_is_better


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rung that was tried.

    Attributes:
        rung: The system.
        against: The one that stood.
        contrast: Of the two; None where the rung was not measured.
        accepted: Whether it stands now; None where it was not measured.
    """

    rung: str
    against: str
    contrast: Contrast | None
    accepted: bool | None

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json."""
        found = self.contrast
        return {
            "rung": self.rung,
            "against": self.against,
            "difference": None if found is None else found.difference,
            "low": None if found is None else found.low,
            "high": None if found is None else found.high,
            "p": None if found is None else found.p,
            "accepted": self.accepted,
        }


def climb(section: StagedSection, standings: Mapping[str, Standing]) -> tuple[str | None, list[Step]]:
    """Try the rungs in their order.

    Args:
        section: Of the spec. Its level is divided by the number of steps (Bonferroni): which systems meet depends on
            what came before, so a correction that looks at all p-values together has nothing to look at.
        standings: By system.

    Returns:
        The rung that stands at the end, and every step; None where the first rung was not measured.
    """
    first, *others = section.rungs
    if first not in standings:
        return None, []
    level, stands, steps = section.level / len(others), first, []
    for rung in others:
        found = standings.get(rung)
        contrast = None if found is None else contrast_of(found, standings[stands], section.metric)
        accepted = None if contrast is None else _is_better(contrast, level)
        steps.append(Step(rung=rung, against=stands, contrast=contrast, accepted=accepted))
        stands = rung if accepted else stands
    return stands, steps


def _is_better(found: Contrast, level: float) -> bool:
    if not found.difference or found.p is None or found.p > level:
        return False
    return (found.difference < 0) == lower_is_better(found.metric)
