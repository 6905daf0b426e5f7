"""LoRA adapters as they lie on the disk, read without PEFT: the other side of every comparison with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MATRIX = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
# Settings of PEFT under which a layer's change is not scale * B A, or not all that the adapter changes.
_OTHERWISE = {
    "use_dora": "DoRA scales the columns of base and update together, so updates do not add up",
    "modules_to_save": "whole modules were trained beside the matrices, and have no sum with others",
    "trainable_token_indices": "rows of tokens were trained, and have no sum with others",
    "lora_bias": "biases were trained",
    "target_parameters": "it changes parameters that are not layers",
    "layer_replication": "it repeats layers of the base",
    "use_qalora": "QA-LoRA pools the inputs of its layers",
    "alora_invocation_tokens": "it is active only after certain tokens",
}


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """One layer's update, ``scale * up @ down``.

    Attributes:
        down: A, (rank, in), float32.
        up: B, (out, rank), float32.
        scale: The factor on their product.
    """

    down: Tensor
    up: Tensor
    scale: float

    def update(self) -> Tensor:
        """The change of the layer's weight, (out, in), float32."""
        return self.up @ self.down * self.scale


def not_additive(folder: Path) -> str | None:
    """Why an adapter's update is not a sum of thin products over the base's layers; None where it is.

    Reads the names of tensors, not their values.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = list(file.keys())
    except (OSError, ValueError, SafetensorError) as error:
        return f"it cannot be read: {error}"
    if config.get("peft_type") != "LORA":
        return f"it is of PEFT's type {config.get('peft_type')}, not LORA"
    if config.get("bias", "none") != "none":
        return "biases were trained"
    strange = [name for name in names if _MATRIX.fullmatch(name) is None]
    because = [words for key, words in _OTHERWISE.items() if config.get(key)]
    return because[0] if because else f"it holds {strange[0]}, which is no layer's A or B" if strange else None


def read_lora(folder: Path) -> dict[str, Matrices]:
    """The matrices of every layer, by the layer's name in the base.

    Args:
        folder: One in which `not_additive` finds nothing.

    Raises:
        ValueError: A matrix has no partner, or a value is not finite.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    sides: dict[str, dict[str, Tensor]] = {}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        for name in sorted(file.keys()):
            found = _MATRIX.fullmatch(name)
            assert found is not None, name
            sides.setdefault(found["layer"], {})[found["side"]] = file.get_tensor(name).float()
    layers = {}
    for layer, both in sides.items():
        if set(both) != {"A", "B"} or both["A"].shape[0] != both["B"].shape[1]:
            raise ValueError(f"{layer} has not two matrices of one rank")
        if not all(bool(torch.isfinite(matrix).all()) for matrix in both.values()):
            raise ValueError(f"{layer} has values that are NaN or infinite")
        scale = lora_scale(layer, config, both["A"].shape[0])
        layers[layer] = Matrices(down=both["A"], up=both["B"], scale=scale)
    return layers


def lora_scale(layer: str, config: Mapping[str, Any], rank: int) -> float:
    """PEFT's factor on B A in one layer.

    Args:
        layer: Its name in the base.
        config: adapter_config.json.
        rank: Rows of the layer's A.
    """
    # PEFT: the first pattern that the end of the layer's name matches.
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matches = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer))
    alpha = float(next(matches, config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
