"""Bases that bitsandbytes holds in 4 or 8 bits: what methods on top of them must know."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig

PEFT_PREFIX = "base_model.model."  # in front of the base's own names once PEFT has wrapped it


def quantization_config(
    bits: Literal["nf4", "int8"], compute: torch.dtype, *, double: bool = True
) -> BitsAndBytesConfig:
    """How transformers loads such a base.

    Args:
        bits: The form of the weights.
        compute: dtype of the products, for nf4.
        double: nf4 only: the block scales are quantised too.
    """
    if bits == "int8":
        # The threshold keeps activation outliers out of the 8-bit product; 6.0 is the paper's.
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0, llm_int8_has_fp16_weight=False)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute,
    )


def keep_backward_pass(base: nn.Module) -> nn.Module:
    """Keep bitsandbytes from repacking 4-bit weights.

    On a CPU with AVX512-BF16 it does so at the first forward pass in eval mode, for good, and a repacked layer has no
    backward pass: after one validation the gradients of all lower layers would be gone, without an error. (It also
    multiplies in bfloat16 whatever ``compute_dtype`` says.)
    """
    for _, layer in quantised_layers(base):
        layer.support_avx512bf16_for_cpu = False
    return base


@contextlib.contextmanager
def exact_quantised_layers(model: nn.Module) -> Iterator[None]:
    """A block in which each quantised layer multiplies by the weight that it stands for, in the input's dtype."""
    layers = [layer for _, layer in quantised_layers(model)]
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


def quantised_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Quantised layers under their names in the base model (PEFT wraps both the model and the layers)."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    found = []
    for name, module in model.named_modules():
        if isinstance(module, (Linear4bit, Linear8bitLt)):
            plain = name.removeprefix(PEFT_PREFIX).removesuffix(".base_layer")
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
