"""Too little memory in chosen forward passes of training."""

from __future__ import annotations

from typing import Any

import torch

from ftkit.train import objective

ERRORS: dict[str, Exception] = {
    "MemoryError": MemoryError(),
    # What torch's allocators say, of the processor and of a device.
    "RuntimeError": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 9223372036854775807 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}


def run_short(passes: tuple[int, ...], error: str) -> None:
    """Raise this error in the passes with these numbers, from 1."""
    real, count = objective.summed_loss, 0

    def short(model: Any, batch: Any) -> Any:
        nonlocal count
        count += 1
        if count in passes:
            raise ERRORS[error]
        return real(model, batch)

    objective.summed_loss = short
