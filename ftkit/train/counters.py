"""What a run counts, and what it gives in the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counters:
    """What a run has counted; saved with each checkpoint, so that a resumed run goes on counting."""

    tokens: int = 0
    supervised_tokens: int = 0
    wall_s: float = 0.0
    first_loss: float = math.nan
    last_loss: float = math.nan
    validation_loss: float | None = None
    peak_memory_bytes: int = 0
    cuda_peak_memory_bytes: int | None = None
    validated_at: int | None = None  # the step that validation_loss is of
    observations: dict[str, Any] = field(default_factory=dict)  # see `ftkit.train.canaries.Observations`


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training gave.

    Attributes:
        steps: Optimizer steps done in all.
        total_steps: Steps that were planned.
        first_loss: Training loss of the first step.
        last_loss: Training loss of the last step.
        validation_loss: After the last step; None without validation rows.
        tokens: Tokens trained on that are not padding.
        wall_s: Seconds in the training loop, over all resumes.
        tokens_per_s: Their ratio.
        peak_memory_bytes: Of this process and its children.
        cuda_peak_memory_bytes: None without CUDA.
        interrupted: Whether a signal ended it early.
    """

    steps: int
    total_steps: int
    first_loss: float
    last_loss: float
    validation_loss: float | None
    tokens: int
    wall_s: float
    tokens_per_s: float
    peak_memory_bytes: int
    cuda_peak_memory_bytes: int | None
    interrupted: bool


def train_result(counters: Counters, *, steps: int, total: int, interrupted: bool) -> TrainResult:
    """Sum up."""
    return TrainResult(
        steps=steps,
        total_steps=total,
        first_loss=counters.first_loss,
        last_loss=counters.last_loss,
        validation_loss=counters.validation_loss,
        tokens=counters.tokens,
        wall_s=counters.wall_s,
        tokens_per_s=counters.tokens / max(counters.wall_s, 1e-9),
        peak_memory_bytes=counters.peak_memory_bytes,
        cuda_peak_memory_bytes=counters.cuda_peak_memory_bytes,
        interrupted=interrupted,
    )
