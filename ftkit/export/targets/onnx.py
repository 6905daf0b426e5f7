"""ONNX for onnxruntime-genai: the merged model, made by the engine's own builder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError
from ftkit.export.process import run_alone
from ftkit.export.quality import quality_loss
from ftkit.export.target import Target
from ftkit.export.targets import merged
from ftkit.export.trained import Trained, Written, generation_config
from ftkit.models.find import BaseModel

READER = Path(__file__).parents[1] / "readers" / "onnx_genai.py"
PROCESS = Path(__file__).parents[1] / "onnx_process.py"
TIMEOUT_S = 3600
LINES_SHOWN = 12
# How the builder rounds to int4. Of SmolLM2-135M, tuned as tests/export/real_exports.py does, mean KL in nats, size,
# and how many of 3 greedy answers stay equal: the builder's default 0.24, 124 MB, 2; k_quant 0.12, 126 MB, 1;
# k_quant_mixed, which keeps the head and the layers that suffer most in 8 bit, 0.048, 151 MB, 1.
BEST_ROUNDING, PLAIN_ROUNDING = "k_quant_mixed", "default"
WIDTH_MULTIPLE = 64  # of k_quant, which packs zero points of blocks of 32 in pairs and fails on an odd number
HEAD_MULTIPLE = 16  # of the engine's attention kernel
# Those that tests/export/test_onnx.py holds to transformers in the engine. The builder has code for others; of
# Gemma 2 it makes a model that the engine cannot run with fewer tokens than its attention window.
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write model.onnx, model.onnx.data and genai_config.json.

    Args:
        trained: The live model and its record.
        dtype: ``float32`` (also ``auto``), or ``int4`` for most weights of the linear layers.
        folder: Where to.

    Raises:
        ModelError: The builder failed; with the end of what it printed.
    """
    stored = "float32" if dtype == "auto" else dtype
    # Beside the artefact: there is room there, while a folder for temporary files may be small.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ftkit-onnx-") as scratch:
        plain = Path(scratch) / "merged"
        merged.write(trained, "float32", plain)
        trained.tokenizer.save_pretrained(plain)
        # The builder reads here at which tokens the engine is to stop.
        generation_config(trained).save_pretrained(plain)
        rounding = _rounding(trained.base.config)
        options = [f"algo_config={rounding}"] if stored == "int4" else []
        _build(plain, folder, Path(scratch) / "cache", dtype=stored, options=options)
    if stored == "float32":
        return Written(dtype=stored)
    loss = quality_loss(trained, "onnx", folder, READER)
    return Written(dtype=stored, notes={"rounding": rounding, "quality_loss": loss})


def _rounding(config: dict[str, Any]) -> str:
    """The better rounding, where the widths of all matrices allow it."""
    widths = (config["hidden_size"], config["intermediate_size"], config["num_attention_heads"] * _head_width(config))
    return PLAIN_ROUNDING if any(width % WIDTH_MULTIPLE for width in widths) else BEST_ROUNDING


def _head_width(config: dict[str, Any]) -> int:
    width: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return width


def _build(plain: Path, folder: Path, cache: Path, *, dtype: str, options: Sequence[str] = ()) -> None:
    words: list[str | Path] = [
        PROCESS, "-i", plain, "-o", folder, "-e", "cpu", "-c", cache,
        "-p", {"float32": "fp32"}.get(dtype, dtype), "--extra_options", "hf_token=false", *options,
    ]  # fmt: skip
    done = run_alone(words, TIMEOUT_S)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ModelError(
            "export to onnx: the builder of onnxruntime-genai failed; its last lines were:\n"
            + "\n".join(f"  {line}" for line in lines[-LINES_SHOWN:]),
            fix="Export to merged, or try another release of onnxruntime-genai.",
        )


def _refuses(base: BaseModel, settings: Any) -> str | None:
    del settings  # every method that merges leaves the base's architecture
    (name, *_) = base.config.get("architectures") or ("unnamed",)
    if name not in ARCHITECTURES:
        return f"its architecture is {name}; proven in onnxruntime-genai are {', '.join(ARCHITECTURES)}"
    width = _head_width(base.config)
    if width % HEAD_MULTIPLE:
        return f"its attention heads are {width} wide, and onnxruntime-genai needs a multiple of {HEAD_MULTIPLE}"
    if base.config.get("sliding_window") and base.config.get("use_sliding_window", True):
        return "its attention has a sliding window, which onnxruntime-genai runs only with room for the whole window"
    return None


ONNX = Target(
    write=write,
    reader=READER,
    needs=(("onnxruntime_genai", "onnx", "onnx_ir"), "onnx"),
    loads_with=("onnxruntime-genai",),
    refuses=_refuses,
)
