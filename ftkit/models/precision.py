"""Which precision the weights are held in and which the arithmetic uses."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftkit.machine import cpu_has_fast_bfloat16


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Attributes: weights: dtype that the base is loaded in. compute: dtype of the matrix products."""

    weights: torch.dtype
    compute: torch.dtype


def default_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def choose_precision(asked: str, *, checkpoint: str, device: torch.device, master_weights: bool) -> Precision:
    """Resolve ``model.dtype``.

    Arithmetic is never float16: its range overflows in the backward pass without loss scaling, and every device
    that multiplies float16 quickly does bfloat16 as well or falls back to float32 correctly.

    Args:
        asked: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        checkpoint: The dtype that the weights have on disk.
        device: Where training will run.
        master_weights: The base's own weights are changed. They are then float32 whatever was asked, because a
            bfloat16 weight does not move when an update is smaller than 1/256 of it.
    """
    fast_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    fast_bfloat16 = fast_bfloat16 or (device.type == "cpu" and cpu_has_fast_bfloat16())
    compute = torch.bfloat16 if fast_bfloat16 else torch.float32
    if asked == "float32":
        compute = torch.float32
    elif asked == "bfloat16":
        compute = torch.bfloat16
    weights = getattr(torch, checkpoint if asked == "auto" else asked)
    # Narrower weights would narrow the arithmetic: without autocast a layer computes in their dtype.
    if master_weights or compute == torch.float32 or (asked == "auto" and weights == torch.float16):
        weights = torch.float32
    return Precision(weights=weights, compute=compute)


def widen(model: nn.Module) -> dict[str, torch.dtype]:
    """Hold every 16-bit weight in float32, in place; values stay the same, quantised weights as they are.

    Returns:
        The former dtypes, for `narrow_again`.
    """
    before: dict[str, torch.dtype] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.dtype in (torch.bfloat16, torch.float16):
            before[name] = value.dtype
            value.data = value.data.float()
    _restore_embedding_scales(model)
    return before


def _restore_embedding_scales(model: nn.Module) -> None:
    """Gemma and others scale embeddings by a square root that 16 bits round; in float32 it is the exact one."""
    for module in model.modules():
        exact, scale = getattr(module, "scalar_embed_scale", None), getattr(module, "embed_scale", None)
        if exact is not None and isinstance(scale, torch.Tensor) and scale.dtype == torch.float32:
            scale.fill_(exact)


def narrow_again(model: nn.Module, before: dict[str, torch.dtype]) -> None:
    """Undo `widen`, exactly."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name in before:
            value.data = value.data.to(before[name])


def arithmetic(device: torch.device, compute: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Context in which matrix products run in ``compute`` while weights, norms and sums keep their own dtype.

    Measured with SmolLM2-135M and LoRA on a CPU: as fast as weights cast to bfloat16, and the same weights can be
    read back in float32, so that exports are checked without the noise of the arithmetic.
    """
    if compute == torch.float32:
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = torch.autocast(device.type, dtype=compute)
    return context
