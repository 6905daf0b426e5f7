"""QLoRA: LoRA on a base that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

import contextlib
import copy
import functools
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from ftkit.methods.lora import LoRAMethod


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

    def quantization(self, compute: torch.dtype) -> BitsAndBytesConfig:
        """See `Method.quantization`."""
        if self.bits == "int8":
            # The threshold keeps activation outliers out of the 8-bit product; 6.0 is the paper's.
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0, llm_int8_has_fp16_weight=False)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=compute,
        )

    def prepare(self, base: nn.Module) -> nn.Module:
        """See `Method.prepare`.

        On a CPU with AVX512-BF16, bitsandbytes repacks a 4-bit weight at its first forward pass in eval mode, for
        good, and the repacked layer has no backward pass: after one validation the gradients of all lower layers
        would be gone, without an error. (It also multiplies in bfloat16 whatever ``compute_dtype`` says.)
        """
        for _, layer in _quantised(base):
            layer.support_avx512bf16_for_cpu = False
        return base

    def merge(self, trained: nn.Module, fresh: nn.Module) -> nn.Module:
        """See `Method.merge`: the base's weights become the dequantised ones, then the adapter is added."""
        plain: dict[str, Any] = dict(fresh.named_modules())
        with torch.no_grad():
            for name, module in _quantised(trained):
                weight = dequantised_weight(module)
                # GPT-2's Conv1D holds its weight as (in, out); the quantised layer in its place does not.
                plain[name].weight.copy_(weight.T if isinstance(plain[name], Conv1D) else weight)
        return super().merge(trained, fresh)

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """See `Method.float32_arithmetic`: each quantised layer multiplies by the weight that it stands for."""
        layers = [layer for _, layer in _quantised(model)]
        try:
            for layer in layers:
                layer.forward = functools.partial(_exact_forward, layer)
            yield
        finally:
            for layer in layers:
                del layer.forward  # the class's own shows again


def _exact_forward(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    bias = None if layer.bias is None else layer.bias.to(hidden.dtype)
    return nn.functional.linear(hidden, dequantised_weight(layer).to(hidden.dtype), bias)


def _quantised(model: nn.Module) -> list[tuple[str, Any]]:
    """Quantised layers under their names in the base model (PEFT wraps both the model and the layers)."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    found = []
    for name, module in model.named_modules():
        if isinstance(module, (Linear4bit, Linear8bitLt)):
            plain = name.removeprefix("base_model.model.").removesuffix(".base_layer")
            found.append((plain, module))
    return found


def dequantised_weight(module: Any) -> torch.Tensor:
    """The weight that a quantised layer stands for, (out, in), float32."""
    import bitsandbytes as bnb

    if hasattr(module.weight, "quant_state"):
        # The state's dtype is what the base was loaded in; of a 16-bit base it would round the dequantised weight.
        state = copy.copy(module.weight.quant_state)
        state.dtype = torch.float32
        weight: torch.Tensor = bnb.functional.dequantize_4bit(module.weight.data, state)
        return weight
    scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    rows = module.weight.CB if getattr(module.weight, "CB", None) is not None else module.weight.data
    return rows.float() * scale.float().unsqueeze(1) / 127
