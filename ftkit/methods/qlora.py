"""QLoRA: LoRA on a base that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from ftkit.methods.lora import LoRAMethod
from ftkit.methods.method import MergeBase, Merger, Read
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

    The adapter learns to correct the quantised base, so that is what `merge` merges into first of all: the same
    adapter on the full-precision base is a model that nobody trained, whose distance an export measures.

    Args:
        quantization: ``nf4`` or ``int8``.
        double_quantization: Quantise NF4's block scales too.
        lora: As for `LoRAMethod`.

    Source:
        Dettmers et al. 2023, arXiv:2305.14314; int8: Dettmers et al. 2022, arXiv:2208.07339.
    """

    merge_bases = ("dequantised", "original")
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

    def merger(self, trained: nn.Module, skeleton: nn.Module, *, base: MergeBase) -> Merger | None:
        """See `Method.merger`: of the dequantised base, each weight is worked out when its turn comes."""
        # GPT-2's, asked before PEFT wraps them.
        transposed = {f"{name}.weight" for name, layer in skeleton.named_modules() if isinstance(layer, Conv1D)}
        inner = super().merger(trained, skeleton, base=base)
        return inner if inner is None or base == "original" else _OnDequantised(inner, trained, transposed)

    def merge(self, trained: nn.Module, fresh: nn.Module, *, base: MergeBase | None = None) -> nn.Module:
        """See `Method.merge`: the base's weights become the dequantised ones, then the adapter is added."""
        if base != "original":
            plain: dict[str, Any] = dict(fresh.named_modules())
            with torch.no_grad():
                for name, module in quantised_layers(trained):
                    _as_stored(plain[name]).copy_(dequantised_weight(module))
        return super().merge(trained, fresh, base=base)

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """See `Method.float32_arithmetic`: each quantised layer multiplies by the weight that it stands for."""
        with exact_quantised_layers(model):
            yield


class _OnDequantised(Merger):
    """Another merger, given the weights that the quantised layers stand for.

    Args:
        inner: What merges.
        trained: The live model, whose base is quantised.
        transposed: Names of weights that the base's checkpoint holds as (in, out).
    """

    def __init__(self, inner: Merger, trained: nn.Module, transposed: set[str]) -> None:
        self._inner = inner
        self._layers = {f"{name}.weight": layer for name, layer in quantised_layers(trained)}
        self._transposed = transposed

    def merged(self, names: list[str], read: Read) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Merger.merged`."""
        yield from self._inner.merged(names, lambda name: self._dequantised(name, read))

    def _dequantised(self, name: str, read: Read) -> torch.Tensor:
        if name not in self._layers:
            return read(name)
        weight = dequantised_weight(self._layers[name])
        # bitsandbytes has a layer's weight as (out, in), GPT-2's checkpoints the other way round.
        return weight.T if name in self._transposed else weight


def _as_stored(layer: Any) -> torch.Tensor:
    """A plain layer's weight as (out, in): GPT-2's Conv1D holds it the other way round."""
    weight: torch.Tensor = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight
