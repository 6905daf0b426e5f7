"""LoRA as a GGUF of its own, which llama.cpp puts on a GGUF of the base (``llama-server --lora``)."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFType, GGUFWriter, Keys, get_tensor_name_map
from safetensors.numpy import load_file

from ftkit.errors import ModelError
from ftkit.export.converter import base_as_gguf
from ftkit.export.engine_tokens import READER, not_for_llama_cpp
from ftkit.export.target import Target
from ftkit.export.targets.gguf import NEEDS
from ftkit.export.trained import Trained, Written
from ftkit.methods import lora_scale
from ftkit.models.find import BaseModel

ADAPTER_FILE = "adapter.gguf"
LAYER = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What llama.cpp makes of a model's linear layers.

    Attributes:
        name: llama.cpp's.
        interleaved: Layers whose rows it stores in another order: the two halves of each head by turns.
    """

    name: MODEL_ARCH
    interleaved: tuple[str, ...] = ()


# Those whose adapters were measured in llama.cpp against the live model.
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(name=MODEL_ARCH.LLAMA, interleaved=("q_proj", "k_proj")),
    "MistralForCausalLM": Architecture(name=MODEL_ARCH.LLAMA, interleaved=("q_proj", "k_proj")),
    "Qwen2ForCausalLM": Architecture(name=MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Architecture(name=MODEL_ARCH.QWEN3),
}


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write adapter.gguf from what the method saves for PEFT.

    Args:
        trained: The live model and its record.
        dtype: Only ``auto``: adapters are small, and keep the float32 that they were trained in.
        folder: Where to.
    """
    del dtype
    with tempfile.TemporaryDirectory(prefix=".adapter-", dir=folder) as scratch:
        trained.method.save(trained.model, Path(scratch))
        weights = load_file(Path(scratch) / "adapter_model.safetensors")
        config = json.loads((Path(scratch) / "adapter_config.json").read_text(encoding="utf-8"))
    architecture = ARCHITECTURES[trained.base.config["architectures"][0]]
    writer = GGUFWriter(folder / ADAPTER_FILE, MODEL_ARCH_NAMES[architecture.name])
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    writer.add_name(f"{trained.base.portable_name} {trained.origin['recipe']}")
    for name, matrix in gguf_tensors(weights, config, trained.base.config).items():
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Written(dtype="float32", notes={"base_model_name_or_path": trained.base.peft_name})


def gguf_tensors(
    weights: Mapping[str, np.ndarray[Any, Any]], config: dict[str, Any], model: dict[str, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """PEFT's matrices by llama.cpp's names, in its order of rows.

    llama.cpp scales every layer by ``alpha / rows of A``; what a layer's own scale differs from that is in its B.

    Args:
        weights: A (rank, in) and B (out, rank) of each layer, by PEFT's names.
        config: adapter_config.json.
        model: config.json of the base.

    Raises:
        ModelError: One of the layers has no name in llama.cpp.
    """
    architecture = ARCHITECTURES[model["architectures"][0]]
    names = get_tensor_name_map(architecture.name, model["num_hidden_layers"])
    heads = {"q_proj": model["num_attention_heads"]}
    heads["k_proj"] = model.get("num_key_value_heads") or heads["q_proj"]
    tensors = {}
    for key in sorted(weights):
        found = LAYER.fullmatch(key)
        layer = found["layer"] if found else key
        name = names.get_name(layer)
        if found is None or name is None:
            raise ModelError(f"llama.cpp has no adapter for {layer}", fix="Export it merged: `--to gguf`.")
        matrix = weights[key].astype(np.float32)
        kind = layer.rpartition(".")[2]
        if found["side"] == "B":
            matrix = matrix * np.float32(
                lora_scale(layer, config, matrix.shape[1]) * matrix.shape[1] / config["lora_alpha"]
            )
            if kind in architecture.interleaved:
                matrix = _interleave(matrix, heads[kind])
        tensors[f"{name}.weight.lora_{found['side'].lower()}"] = np.ascontiguousarray(matrix)
    return tensors


def _interleave(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows 0..n/2-1 and n/2..n-1 of each head by turns: llama.cpp rotates neighbours, transformers the two halves.

    Args:
        rows: (heads x head width, rank).
        heads: How many heads share them.
    """
    width = rows.shape[0] // heads
    return rows.reshape(heads, 2, width // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _refuses(base: BaseModel, settings: Any) -> str | None:
    architecture = base.config["architectures"][0]
    if architecture not in ARCHITECTURES:
        return f"adapters of {architecture} are not proven in llama.cpp ({', '.join(ARCHITECTURES)} are); use gguf"
    if settings.use_dora:
        return "llama.cpp's adapters are plain LoRA, without DoRA's lengths of columns; use gguf"
    if settings.modules_to_save:
        return "llama.cpp's adapters are thin matrices, and modules_to_save trains whole ones; use gguf"
    if settings.trainable_tokens:
        return "llama.cpp's adapters change no rows of the embedding, which trainable_tokens trains; use gguf"
    tables = [name for name in settings.target_modules if name.rpartition(".")[2] in ("lm_head", "embed_tokens")]
    if settings.target_modules != "all-linear" and tables:
        return f"llama.cpp's adapters are for the layers, not for {', '.join(tables)}; use gguf"
    return not_for_llama_cpp(base.folder)


GGUF_ADAPTER = Target(
    write=write,
    on_base=True,
    reader=READER,
    prepare=base_as_gguf,
    own_tokenizer=True,
    fixed_vocabulary=True,
    needs=NEEDS,
    loads_with=("llama-cpp-python",),
    refuses=_refuses,
)
