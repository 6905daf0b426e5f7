"""Fit a tiny model for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.data.example import TokenizedExample
from ftkit.methods import LoRAMethod, Method
from ftkit.models.load import load_model
from ftkit.train.spec import FitSpec

DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "epochs": 1,
    "max_steps": None,
    "batch_size": 8,
    "micro_batch_size": 4,
    "packing": False,
    "gradient_checkpointing": False,
    "compute": torch.float32,
    "seed": 0,
    "checkpoint_every": 100,
    "keep_last": 2,
    "validate_every": 100,
    "log_every": 1,
}


def spec(folder: Path, **changes: Any) -> FitSpec:
    return FitSpec(**(DEFAULTS | {"folder": folder} | changes))


def examples(count: int, *, seed: int = 0, longest: int = 24) -> list[TokenizedExample]:
    """Rows of very different lengths, of which between one and nearly all tokens are supervised."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    rows = []
    for index in range(count):
        length = draw(4, longest + 1)
        start = length - 1 if index % 3 == 0 else draw(1, max(2, length // 3))
        ids = [draw(4, 400) for _ in range(length)]
        labels = [-100] * start + ids[start:]
        place = f"rows.jsonl:{index + 1}"
        rows.append(
            TokenizedExample(
                input_ids=ids, labels=labels, answer_start=start, stop_id=ids[-1], answer="", place=place
            )
        )
    return rows


def attached(folder: Path, method: Method | None = None) -> nn.Module:
    """A freshly loaded model with a method attached, always the same."""
    base = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    torch.manual_seed(0)
    return (method or LoRAMethod(rank=4, alpha=8)).attach(base)


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
