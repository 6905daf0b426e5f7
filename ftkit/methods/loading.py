"""Exported adapters onto their base, in one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from ftkit.errors import ModelError
from ftkit.methods import bottleneck
from ftkit.methods.adapter_files import check_adapter, naming_adapter, read_adapter_config
from ftkit.methods.quantised import keep_backward_pass, quantised_layers

# Files that stand alone and load, by `load(base, folder)`, the adapters of recipes that PEFT has no format for.
ADAPTER_LOADERS = {"adapter": Path(bottleneck.__file__)}


# Far more tokens than anybody adds, and no more rows than fit into memory.
_MORE_ROWS = 100_000


def load_adapter(base: nn.Module, folder: str | Path) -> nn.Module:
    """Put an exported adapter of any method onto a freshly loaded base model of transformers.

    Args:
        base: The base that the adapter was trained on; manifest.json beside the adapter says which.
        folder: The export.

    Returns:
        The model to use, in eval mode; ``base`` itself is changed.

    Raises:
        ModelError: The folder holds no adapter, or one of another model.
    """
    folder = Path(folder)
    config = read_adapter_config(folder)
    with naming_adapter(folder):
        _fit(base, _manifest(folder), folder)
        if config.get("format") == bottleneck.FORMAT:
            return bottleneck.load(base, folder).eval()
        check_adapter(folder)
        loaded: nn.Module = PeftModel.from_pretrained(base, folder, local_files_only=True)
    return loaded.eval()


def _manifest(folder: Path) -> dict[str, Any]:
    """What ftkit wrote of the export; empty for an adapter that it did not write."""
    path = folder / "manifest.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _fit(base: Any, manifest: dict[str, Any], folder: Path) -> None:
    """Give the base what the adapter counts on, and refuse one that is held otherwise than in training."""
    wanted = manifest.get("quantization")
    is_quantised = bool(quantised_layers(base))
    if "quantization" in manifest and (wanted is not None) != is_quantised:
        held = "in plain weights" if wanted is None else f"quantised: BitsAndBytesConfig(**{wanted})"
        raise ModelError(
            f"{folder}: was trained on a base held {held}; on this one it would be another model",
            fix="Load the base in that form.",
        )
    if wanted is not None:
        keep_backward_pass(base)
    rows = max(manifest.get("added_tokens", []), default=-1) + 1
    known = base.get_input_embeddings().weight.shape[0]
    if known < rows:
        if rows > known + _MORE_ROWS:
            raise ValueError(f"its manifest.json adds tokens up to {rows - 1}, far beyond the base's {known}")
        base.resize_token_embeddings(rows, mean_resizing=False)  # the adapter brings the new rows
