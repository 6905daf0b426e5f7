"""Plain weights of the base's architecture, which any engine loads that knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ftkit.export.soft_prompt import merge_prompt
from ftkit.export.target import Target
from ftkit.export.trained import Trained, Written
from ftkit.models.load import load_model
from ftkit.models.vocabulary import extend_vocabulary
from ftkit.models.weights import checkpoint_dtype


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write config.json and safetensors.

    Args:
        trained: The live model and its record.
        dtype: Of the weights; ``auto`` for the base checkpoint's own.
        folder: Where to.
    """
    stored = checkpoint_dtype(trained.base.folder) if dtype == "auto" else dtype
    fresh = load_model(trained.base.folder, dtype=torch.float32, device=torch.device("cpu"))
    extend_vocabulary(fresh, trained.added_tokens)
    merged: Any = trained.method.merge(trained.model, fresh)
    notes = merge_prompt(trained, merged)
    merged.to(getattr(torch, stored))
    merged.save_pretrained(folder, safe_serialization=True, max_shard_size="5GB")
    return Written(dtype=stored, notes=notes)


MERGED = Target(write=write)
