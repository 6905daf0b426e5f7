"""Every method in the settings that matter, on every family of tiny models that it fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.evaluate.loss import summed_loss
from ftkit.methods import METHODS, Method
from ftkit.models.load import load_model
from ftkit.recipe import RECIPES, Recipe

CPU = torch.device("cpu")
FAMILIES = ("llama", "qwen2", "mistral", "gemma2", "gpt2")
ROTARY = ("llama", "qwen2", "mistral", "gemma2")
# Ids of three rows, with labels that leave out each row's beginning.
IDS = torch.tensor(
    [[5, 60, 7, 80, 9, 100, 11, 120], [13, 140, 15, 160, 17, 180, 19, 200], [21, 30, 23, 40, 25, 2, 0, 0]]
)
BATCH = {
    "input_ids": IDS,
    "attention_mask": torch.tensor([[1] * 8, [1] * 8, [1] * 6 + [0] * 2]),
    "labels": torch.where(
        torch.tensor([[0] * 3 + [1] * 5, [0] * 4 + [1] * 4, [0, 0, 1, 1, 1, 1, 0, 0]]) > 0, IDS, -100
    ),
}


@dataclass(frozen=True)
class Case:
    """One method with one choice of settings, as a recipe names them."""

    id: str
    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = FAMILIES

    def method(self) -> Method:
        """Built the way a run builds it: from the recipe's settings."""
        return METHODS[self.recipe](**self.as_recipe().method.model_dump())

    def as_recipe(self) -> Recipe:
        return RECIPES[self.recipe].model_validate(
            {"recipe": self.recipe, "model": "m", "data": "d.jsonl", "method": self.settings}
        )

    def base(self, folder: Path) -> nn.Module:
        """The base as training holds it."""
        method = self.method()
        quantization = method.quantization(torch.float32)
        loaded = load_model(folder, dtype=torch.float32, device=CPU, quantization_config=quantization)
        return method.prepare(loaded)

    def attached(self, folder: Path) -> nn.Module:
        torch.manual_seed(0)
        return self.method().attach(self.base(folder)).train()


THIN = {"rank": 4, "alpha": 8}
CASES = [
    Case("full", "full"),
    Case("full-layers.1", "full", {"parameters": ["model.layers.1.*", "model.norm.weight"]}, ROTARY),
    Case("full-h.1", "full", {"parameters": ["transformer.h.1.*"]}, ("gpt2",)),
    Case("lora", "lora", THIN),
    Case("lora-q-down", "lora", {**THIN, "target_modules": ["q_proj", "down_proj"]}, ROTARY),
    Case("lora-c_attn", "lora", {**THIN, "target_modules": ["c_attn"]}, ("gpt2",)),
    Case("qlora-nf4", "qlora", {**THIN, "quantization": "nf4"}),
    Case("qlora-nf4-single", "qlora", {**THIN, "quantization": "nf4", "double_quantization": False}, ("llama",)),
    Case("qlora-int8", "qlora", {**THIN, "quantization": "int8"}),
]
PAIRS = [(case, family) for case in CASES for family in case.families]


def train_steps(model: nn.Module, count: int, learning_rate: float = 1e-2) -> None:
    """Plain gradient steps on `BATCH`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    model.train()
    for _ in range(count):
        optimizer.zero_grad()
        (summed_loss(model, BATCH) / 13).backward()
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def logits_of(model: nn.Module) -> torch.Tensor:
    """Logits of the two rows without padding."""
    model.eval()
    return model(input_ids=IDS[:2], use_cache=False).logits.float()
