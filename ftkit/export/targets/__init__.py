"""Every kind of export. A new one is one file here and one line in `TARGETS` (and its name in `ftkit.recipe`)."""

from __future__ import annotations

from ftkit.export.target import Target
from ftkit.export.targets.adapter import ADAPTER
from ftkit.export.targets.gguf import GGUF
from ftkit.export.targets.gguf_adapter import GGUF_ADAPTER
from ftkit.export.targets.merged import MERGED
from ftkit.export.targets.nf4 import NF4
from ftkit.export.targets.onnx import ONNX

TARGETS: dict[str, Target] = {
    "adapter": ADAPTER,
    "merged": MERGED,
    "gguf": GGUF,
    "gguf-adapter": GGUF_ADAPTER,
    "nf4": NF4,
    "onnx": ONNX,
}

__all__ = ["TARGETS"]
