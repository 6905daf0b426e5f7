"""The course of a run's losses, and when it is a divergence."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

# A run diverges when the median of so many losses is that much worse than the best such median before. Losses of
# single steps differ by what is in them; medians of ten on mixed data were within a factor of 1.3 of each other.
MEDIAN_OF = 10
DIVERGED = (2.0, 1.0)  # times the best, plus nats
# Or, sooner, when so many steps in a row are that many times worse than guessing each token with equal odds.
HOPELESS_STEPS, HOPELESS = 3, 1.5


@dataclass
class Observations:
    """What must be remembered over a resume, saved with each checkpoint.

    Attributes:
        first_batch: Loss of the first batch before anything was trained.
        learnt: Whether it was lower once.
        guessing: Loss that `HOPELESS` is about: of the first step, or of guessing if that is higher.
        recent: Losses of the last steps.
        best: Lowest median of so many losses.
    """

    first_batch: float | None = None
    learnt: bool = False
    guessing: float = 0.0
    recent: list[float] = field(default_factory=list)
    best: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def divergence(seen: Observations, loss: float) -> str | None:
    """Take one more loss to the others.

    Returns:
        How they diverge; None where they do not.
    """
    seen.recent = [*seen.recent, loss][-MEDIAN_OF:]
    last = seen.recent[-HOPELESS_STEPS:]
    if len(last) == HOPELESS_STEPS and min(last) > HOPELESS * seen.guessing:
        return f"the last {HOPELESS_STEPS} losses are {min(last):.4g} or more; guessing: {seen.guessing:.4g}"
    if len(seen.recent) < MEDIAN_OF:
        return None
    median = statistics.median(seen.recent)
    if seen.best is not None and median > DIVERGED[0] * seen.best + DIVERGED[1]:
        return f"the median of {MEDIAN_OF} losses went from {seen.best:.4g} to {median:.4g}"
    seen.best = median if seen.best is None else min(median, seen.best)
    return None
