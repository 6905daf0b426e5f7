"""QLoRA: LoRA on a base that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from ftkit.methods.lora import LoRAMethod
from ftkit.methods.quantised import (
    PEFT_PREFIX,
    dequantised_weight,
    exact_quantised_layers,
    keep_backward_pass,
    quantised_layers,
    quantization_config,
)
from ftkit.methods.starts import start_from_residual


class QLoRAMethod(LoRAMethod):
    """LoRA whose frozen weights are NF4 (with double quantisation) or int8.

    The adapter learns to correct the quantised base, so that is what `merge` merges into: the same adapter on the
    full-precision base would be a model that nobody trained.

    Args:
        quantization: ``nf4`` or ``int8``.
        double_quantization: Quantise NF4's block scales too.
        lora: As for `LoRAMethod`.

    Source:
        Dettmers et al. 2023, arXiv:2305.14314; int8: Dettmers et al. 2022, arXiv:2208.07339.
    """

    needs = ("bitsandbytes",)

    def __init__(
        self, *, quantization: Literal["nf4", "int8"] = "nf4", double_quantization: bool = True, **lora: Any
    ) -> None:
        super().__init__(**lora)
        self.bits: Literal["nf4", "int8"] = quantization
        self.double_quantization = double_quantization
        self.exact_forward = quantization == "nf4"  # int8 rounds the activations of every layer too
        # DoRA measures dequantised columns, which bitsandbytes rounds to the dtype that the base was loaded in.
        self.needs_float32_base = self.needs_float32_base or self.use_dora
        self.has_own_start = self.has_own_start or self.init == "loftq"

    def quantization(self, compute: torch.dtype) -> BitsAndBytesConfig:
        """See `Method.quantization`."""
        return quantization_config(self.bits, compute, double=self.double_quantization)

    def prepare(self, base: nn.Module) -> nn.Module:
        """See `Method.prepare`."""
        return keep_backward_pass(base)

    def start(self, model: nn.Module, texts: Sequence[Sequence[int]], original: Callable[[], nn.Module]) -> None:
        """See `Method.start`: LoftQ."""
        if self.init != "loftq":
            return super().start(model, texts, original)
        plain: dict[str, Any] = dict(original().named_modules())
        layers: dict[str, Any] = {
            name.removeprefix(PEFT_PREFIX): layer
            for name, layer in model.named_modules()
            if isinstance(layer, LoraLayer)
        }
        for name, module in quantised_layers(model):
            if name in layers:
                start_from_residual(layers[name], _as_stored(plain[name]) - dequantised_weight(module))
        return None

    def merge(self, trained: nn.Module, fresh: nn.Module) -> nn.Module:
        """See `Method.merge`: the base's weights become the dequantised ones, then the adapter is added."""
        plain: dict[str, Any] = dict(fresh.named_modules())
        with torch.no_grad():
            for name, module in quantised_layers(trained):
                _as_stored(plain[name]).copy_(dequantised_weight(module))
        return super().merge(trained, fresh)

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """See `Method.float32_arithmetic`: each quantised layer multiplies by the weight that it stands for."""
        with exact_quantised_layers(model):
            yield


def _as_stored(layer: Any) -> torch.Tensor:
    """A plain layer's weight as (out, in): GPT-2's Conv1D holds it the other way round."""
    weight: torch.Tensor = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight
