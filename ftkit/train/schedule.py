"""The course of the learning rate."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def rate_factor(step: int, *, schedule: Schedule, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak learning rate for one optimizer step.

    Rises evenly over the warm-up and reaches the peak at the step after it; linear and cosine then fall towards zero,
    which they would reach one step after the last. So every step learns something, the first and the last included
    (transformers' schedules give a warmed-up first step a rate of exactly zero).

    Args:
        step: From 0 to ``total_steps - 1``.
        schedule: What follows the warm-up.
        warmup_steps: Steps below the peak.
        total_steps: Of the whole run.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return 1.0
