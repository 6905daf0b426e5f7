"""How LoRA's matrices may start other than from zero: PiSSA, OLoRA, EVA, LoftQ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.incremental_pca import IncrementalPCA
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftkit.errors import RecipeError
from ftkit.methods.peft_calls import ADAPTER

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


@torch.no_grad()
def start_from_activations(model: Any, texts: Sequence[Sequence[int]]) -> None:
    """EVA: A starts with the main directions of what each layer receives on the training data.

    Every layer keeps its rank. PEFT's own function shares the ranks out anew, by the data, as soon as a pattern gives
    layers different ones; it also takes an embedding with trained rows for a layer, and never returns from data of
    fewer tokens than the rank.

    Args:
        model: Of PEFT, with LoRA layers.
        texts: Token ids of training examples.

    Raises:
        RecipeError: A rank is larger than the data or a layer has directions for.

    Source:
        Paischer et al. 2024, arXiv:2410.07170, without the redistribution of ranks (rho = 1).
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    highest = max(layer.r[ADAPTER] for layer in layers.values())
    # Fewer tokens than directions cannot be fitted; those are the last few of the data.
    batches = [
        batch
        for batch in _batches(texts, next(model.parameters()).device)
        if batch["attention_mask"].sum() >= highest
    ]
    width = min(layer.in_features for layer in layers.values())
    if not batches or highest > width:
        limit = f"one layer is {width} wide" if batches else "the training data has fewer tokens"
        raise RecipeError(
            f"method.init: eva cannot find {highest} directions, the highest rank: {limit}",
            fix="Lower the rank, or use init: default.",
        )
    fewest = min(int(batch["attention_mask"].sum()) for batch in batches)
    directions = _Directions(highest, spare=min(highest, width - highest, fewest - highest))
    handles = [layer.register_forward_pre_hook(directions.hook(name)) for name, layer in layers.items()]
    was_training = model.training
    model.eval()
    with model.disable_adapter():
        for batch in batches:
            directions.mask = batch["attention_mask"].bool()
            model(**batch, use_cache=False)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        layer.lora_A[ADAPTER].weight.copy_(directions.of(name)[: layer.r[ADAPTER]])


class _Directions:
    """The principal components of what layers receive, learned batch by batch.

    Args:
        count: How many of each layer.
        spare: Further ones that are carried along while searching, which makes the search more exact.
    """

    def __init__(self, count: int, *, spare: int) -> None:
        self.count = count
        self.spare = spare
        self.mask = torch.zeros(0)
        self._fits: dict[str, IncrementalPCA] = {}
        self._first_of: dict[str, str] = {}  # by layer, the one that was first to receive the same tensor
        self._last: tuple[Any, str] = (None, "")

    def hook(self, name: str) -> Any:
        """A forward pre-hook for the layer of this name."""

        def look(layer: nn.Module, args: tuple[Any, ...]) -> None:
            del layer
            if args[0] is self._last[0]:  # queries, keys and values come from one tensor
                self._first_of[name] = self._last[1]
                return
            self._last = (args[0], name)
            self._first_of[name] = name
            if name not in self._fits:
                self._fits[name] = IncrementalPCA(
                    n_components=self.count, lowrank=True, lowrank_q=self.count + self.spare, lowrank_seed=0
                )
            self._fits[name].partial_fit(args[0][self.mask].float())

        return look

    def of(self, name: str) -> Tensor:
        """The directions of a layer, the main one first, (count, width)."""
        found: Tensor = self._fits[self._first_of[name]].components_
        return found


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
