"""Exported adapters onto their base, in one call."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftModel
from torch import nn

from ftkit.errors import ModelError
from ftkit.methods import bottleneck

# Files that stand alone and load, by `load(base, folder)`, the adapters of recipes that PEFT has no format for.
ADAPTER_LOADERS = {"adapter": Path(bottleneck.__file__)}


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
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("format") == bottleneck.FORMAT:
            return bottleneck.load(base, folder).eval()
        loaded: nn.Module = PeftModel.from_pretrained(base, folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be put onto this model: {error}", fix="Name an adapter export.") from None
    return loaded.eval()
