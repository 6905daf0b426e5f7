"""How LoRA's matrices may start other than from zero: PiSSA, OLoRA, EVA, LoftQ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, initialize_lora_eva_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftkit.methods.peft_method import ADAPTER

EVA_TOKENS = 8192  # of training data whose activations EVA looks at
EVA_BATCH_TOKENS = 1024


def initial_matrices(model: nn.Module) -> dict[str, Tensor]:
    """A and B as they start, under the names that `PeftMethod.save` writes."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.detach().clone() for name, value in state.items() if ".lora_" in name}


def as_correction_of_the_base(folder: Path, initial: dict[str, Tensor], *, use_rslora: bool) -> None:
    """Rewrite a saved adapter whose start was taken out of the base into one for the base as it was.

    The base holds ``W - s B0 A0`` while A and B train, so the trained weight is
    ``W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]``: plain LoRA of twice the rank.

    Args:
        folder: What PEFT wrote.
        initial: From `initial_matrices`.
        use_rslora: The scale is ``alpha / sqrt(rank)``.
    """
    weights_path, config_path = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    weights = load_file(weights_path)
    for name, start in initial.items():
        if ".lora_A." in name:
            weights[name] = torch.cat([weights[name], start.to(weights[name])], dim=0).contiguous()
        elif ".lora_B." in name:
            weights[name] = torch.cat([weights[name], -start.to(weights[name])], dim=1).contiguous()
    save_file(weights, weights_path, metadata={"format": "pt"})
    config = json.loads(config_path.read_text(encoding="utf-8"))
    factor = math.sqrt(2) if use_rslora else 2  # so that the scale stays what it was
    # Alpha is written out for every layer that has a rank of its own: their scales change alike.
    config["r"] *= 2
    config["lora_alpha"] *= factor
    config["rank_pattern"] = {name: 2 * rank for name, rank in (config["rank_pattern"] or {}).items()}
    config["alpha_pattern"] = {name: factor * alpha for name, alpha in (config["alpha_pattern"] or {}).items()}
    config["init_lora_weights"] = True
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def start_from_activations(model: nn.Module, texts: Sequence[Sequence[int]]) -> None:
    """EVA: A starts with the main directions of what each layer receives on the training data.

    Source:
        Paischer et al. 2024, arXiv:2410.07170.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    initialize_lora_eva_weights(model, list(_batches(texts, device)), adapter_name=ADAPTER, show_progress_bar=False)
    model.train(was_training)


def _batches(texts: Sequence[Sequence[int]], device: torch.device) -> Iterator[dict[str, Any]]:
    seen = 0
    group: list[Sequence[int]] = []
    for text in texts:
        group.append(text)
        width = max(map(len, group))
        seen += len(text)
        if width * len(group) >= EVA_BATCH_TOKENS or seen >= EVA_TOKENS:
            yield _padded(group, device)
            group = []
        if seen >= EVA_TOKENS:
            return
    if group:
        yield _padded(group, device)


def _padded(group: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    width = max(map(len, group))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in group], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in group], device=device)
    # Only supervised positions count in EVA; here every token of the data does.
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def start_from_residual(layer: Any, residual: Tensor) -> None:
    """LoftQ with one step: A and B begin with the main part of what quantising took from a layer.

    Args:
        layer: A LoRA layer of PEFT.
        residual: The original weight less the one that the quantised layer stands for, (out, in), float32.

    Source:
        Li et al. 2023, arXiv:2310.08659, with T = 1; the quantised weight stays the base's own, so exports need no
        other base.
    """
    rank = layer.r[ADAPTER]
    left, values, right = torch.linalg.svd(residual, full_matrices=False)
    root = (values[:rank] / layer.scaling[ADAPTER]).sqrt()
    layer.lora_A[ADAPTER].weight.copy_(root.unsqueeze(1) * right[:rank])
    layer.lora_B[ADAPTER].weight.copy_(left[:, :rank] * root)
