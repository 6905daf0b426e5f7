"""What can be told of weights without keeping a copy: whether they are numbers, and whether they have changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftkit.errors import TrainingStoppedError

SHOWN = 5  # of rows or names in a message


def require_finite(model: nn.Module) -> None:
    """Refuse a model with NaN or infinite weights before anything is computed with it.

    Raises:
        TrainingStoppedError: With the names of the tensors.
    """
    if bad := [name for name, value in model.named_parameters() if not is_finite(value)]:
        raise TrainingStoppedError(
            f"the base model is damaged: {some(bad)} hold NaN or infinite values",
            fix="Fetch the base model again, or choose another one.",
        )


def require_number(loss: float, what: str) -> None:
    """Refuse to go on with a loss that is NaN or infinite.

    Raises:
        TrainingStoppedError: With ``what`` in front.
    """
    if not math.isfinite(loss):
        raise TrainingStoppedError(
            f"{what} is {loss}",
            fix="Lower train.learning_rate, or look for damaged rows. The last checkpoint is intact.",
        )


def is_finite(value: Tensor) -> bool:
    """Whether no element is NaN or infinite; true of integers, which quantised weights are."""
    if not value.is_floating_point() or value.numel() == 0 or value.is_meta:
        return True
    low, high = torch.aminmax(value.detach())  # NaN wins in both; no tensor of the same size is made
    return math.isfinite(low.item()) and math.isfinite(high.item())


def fingerprints(named: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    """For each tensor the sum of its bytes read as integers, which changes with nearly every change of a value."""
    integers: Mapping[int, torch.dtype] = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    found = {}
    for name, value in named:
        plain = value.detach().contiguous()
        found[name] = int(plain.view(integers[plain.element_size()]).sum(dtype=torch.int64)) if plain.numel() else 0
    return found


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many there are besides."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
