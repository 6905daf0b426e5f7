"""Bottleneck adapters as a `Method`; what they are is in `ftkit.methods.bottleneck`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ftkit.errors import RecipeError
from ftkit.methods import bottleneck
from ftkit.methods.bottleneck import BottleneckConfig, BottleneckError
from ftkit.methods.method import Method
from ftkit.methods.quantised import exact_quantised_layers, keep_backward_pass, quantization_config


class AdapterMethod(Method):
    """Small layers with a narrow middle inside every block; the base's weights stay as they are.

    Args:
        quantization: Hold the base in 4 or 8 bits; None for plain weights.
        settings: Of `BottleneckConfig`.

    Source:
        Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021, arXiv:2005.00247; He et al. 2022,
        arXiv:2110.04366.
    """

    mergeable = False
    exact_at_init = True

    def __init__(self, *, quantization: Literal["nf4", "int8"] | None = None, **settings: Any) -> None:
        self.bits = quantization
        self.settings = BottleneckConfig(**settings)
        self.needs = () if quantization is None else ("bitsandbytes",)
        self.exact_forward = quantization != "int8"

    def quantization(self, compute: torch.dtype) -> Any:
        """See `Method.quantization`."""
        return None if self.bits is None else quantization_config(self.bits, compute)

    def prepare(self, base: nn.Module) -> nn.Module:
        """See `Method.prepare`."""
        return keep_backward_pass(base) if self.bits else base

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`."""
        with _as_recipe_error():
            attached = bottleneck.attach(model, self.settings, train=True)
        if self.bits:
            # The Trainer refuses a quantised base unless this says that adapters are there to be trained on it.
            attached._hf_peft_config_loaded = True
        return attached

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`; the format is documented in `ftkit.methods.bottleneck`."""
        bottleneck.save(model, folder)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`."""
        return bottleneck.load(base, folder)

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """See `Method.float32_arithmetic`."""
        with exact_quantised_layers(model) if self.bits else contextlib.nullcontext():
            yield


@contextlib.contextmanager
def _as_recipe_error() -> Iterator[None]:
    try:
        yield
    except BottleneckError as error:
        raise RecipeError(f"method: {error.what}", fix=error.fix) from None
