"""Adapters of PEFT merged into a base that is not in memory: a layer at a time.

The model is built without memory behind it (torch's meta device), PEFT puts the adapter's layers on it, and then each
layer in turn gets its real weights, is merged by PEFT's own `merge`, gives up the result and becomes empty again. So
every option of PEFT's layers (DoRA, rsLoRA, patterns of ranks, transposed weights) is PEFT's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, load_peft_weights
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from ftkit.methods.method import Merger, Read
from ftkit.methods.peft_calls import ADAPTER, quiet_peft

# Types of PEFT whose layers are parameters and nothing else: no projections that all layers share (VeRA), no ranks
# that are read from values (AdaLoRA), no tables that are computed once (OFT).
LAYERWISE_TYPES = ("LORA", "IA3", "LOHA", "LOKR")
# Where PEFT keeps what it wraps.
_BASE_HOLDERS = ("base_layer", "token_adapter.base_layer", "original_module")


class LayerwiseMerge(Merger):
    """An adapter folder, merged into one layer of its base after the other.

    Args:
        skeleton: The base on the meta device, with rows for added tokens; it is changed.
        folder: The adapter, as PEFT wrote it.
    """

    def __init__(self, skeleton: nn.Module, folder: Path) -> None:
        config = PeftConfig.from_pretrained(folder, local_files_only=True)
        config.inference_mode = True
        with quiet_peft(), torch.device("meta"):
            self._model: Any = get_peft_model(skeleton, config, low_cpu_mem_usage=True)
        self._weights: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
        self._names = _names_in_file(self._model)
        self._wrapped: dict[str, nn.Module] = {
            name: module
            for name, module in self._model.get_base_model().named_modules()
            if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper, TrainableTokensWrapper))
        }

    def merged(self, names: list[str], read: Read) -> Iterator[tuple[str, Tensor]]:
        """See `Merger.merged`."""
        path = names[0].rpartition(".")[0]
        module = self._wrapped.get(path)
        if module is None:
            yield from ((name, read(name)) for name in names)
            return
        module.to_empty(device="cpu")
        try:
            self._fill(path, module, names, read)
            plain = _merge(module)
            for name in names:
                yield name, plain[name.rpartition(".")[2]]
        finally:
            module.to("meta")

    @torch.no_grad()
    def _fill(self, path: str, module: nn.Module, names: list[str], read: Read) -> None:
        """Give a wrapped module its real values, those of the adapter from its file."""
        prefix = f"base_model.model.{path}." if path else "base_model.model."
        for name, value in module.named_parameters():
            holder, _, leaf = name.rpartition(".")
            if f"{prefix}{name}" in self._names:
                value.copy_(self._weights[self._names[f"{prefix}{name}"]])
            elif holder in _BASE_HOLDERS and f"{path}.{leaf}" in names:
                value.copy_(read(f"{path}.{leaf}"))
            else:
                raise ValueError(f"{path}.{name} is neither in the adapter nor in its base")


def _merge(module: Any) -> dict[str, Tensor]:
    """The plain parameters of one wrapped module."""
    if isinstance(module, ModulesToSaveWrapper):
        return dict(module.modules_to_save[ADAPTER].named_parameters())
    layer = module.token_adapter if isinstance(module, TrainableTokensWrapper) else module
    layer.merge(safe_merge=True)  # refuses NaN
    return dict(layer.get_base_layer().named_parameters())


def _names_in_file(model: Any) -> dict[str, str]:
    """How PEFT names each parameter of an adapter in its file, told by PEFT itself: it is shown numbers as values."""
    parameters = [name for name, _ in model.named_parameters()]
    numbered = {name: torch.tensor(index) for index, name in enumerate(parameters)}
    with quiet_peft():
        kept = get_peft_model_state_dict(model, state_dict=numbered, save_embedding_layers=False)
    return {parameters[int(value)]: name for name, value in kept.items()}
