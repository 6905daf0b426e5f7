"""Weighted combinations of LoRA adapters on one base, with PEFT's functions on whole updates.

Not by PEFT's `add_weighted_adapter`. Its ``linear``, ``ties`` and ``dare_*`` treat A and B apart, and the product of
two sums is not the sum of the products. Its ``cat`` and ``*_svd`` are right but for three things: the new adapter
inherits rsLoRA from the first, which scales once more what is already scaled; masks are drawn in one go over all
layers, behind the new matrices' own random start; and the SVD computes every direction to keep a few. So this joins
what ``cat`` joins, and calls the functions that ``*_svd`` call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils.merge_utils import dare_linear, dare_ties, task_arithmetic, ties
from safetensors.torch import save_file
from torch import Tensor, nn

from ftkit.methods.combination_formula import Combination, layer_seed
from ftkit.methods.lora_file import WEIGHTS
from ftkit.methods.quantised import PEFT_PREFIX

Thin = tuple[Tensor, Tensor]  # A (rank, in) and B (out, rank)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What was written.

    Attributes:
        rank: Of every layer; alpha is the same.
        targets: Names of layers, as PEFT takes them.
        lost: For each layer the length (Frobenius) of what its rank has no room for.
        length: For each layer the length of the combined update.
    """

    rank: int
    targets: tuple[str, ...]
    lost: dict[str, float]
    length: dict[str, float]


@torch.no_grad()
def write_combination(
    model: nn.Module,
    names: Sequence[str],
    combination: Combination,
    folder: Path,
    *,
    rank: int | None,
    watch: Callable[[str, Tensor], None] | None = None,
) -> Built:
    """Write the combination of a model's adapters as one plain LoRA adapter in PEFT's format.

    Everything is computed on the CPU, so that the bytes do not depend on where the model lies.

    Args:
        model: Of PEFT, with the adapters on it.
        names: Of the adapters, in the order of the weights.
        combination: How.
        folder: Where to.
        rank: Of the result, whose layers get the best approximation of that rank; None for as much as it takes to
            lose nothing: the sum of the ranks for ``linear``, else the width of the layer.
        watch: Is told each layer's whole update, (out, in), where it is computed whole.
    """
    thin: dict[str, Thin] = {}
    lost, length = {}, {}
    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        name = path.removeprefix(PEFT_PREFIX)
        if rank is None and combination.how == "linear":
            thin[name] = _joined(layer, names, combination)
            lost[name], length[name] = 0.0, float(torch.linalg.matrix_norm(thin[name][1] @ thin[name][0]))
            continue
        update = _combined(layer, names, combination, name)
        if watch is not None:
            watch(name, update)
        length[name] = float(torch.linalg.matrix_norm(update))
        if rank is None or rank >= min(update.shape):
            thin[name], lost[name] = _factors(update), 0.0
            continue
        down, up = thin[name] = _best_factors(update, rank)
        lost[name] = float(torch.linalg.matrix_norm(update - up @ down))
    widest = max(down.shape[0] for down, _ in thin.values())
    targets = _targets(model, list(thin))
    _save(thin, widest, targets, folder)
    return Built(rank=widest, targets=targets, lost=lost, length=length)


def _matrices(layer: Any, name: str) -> tuple[Tensor, Tensor, float]:
    """A, B and their scale, all as PEFT has them in memory."""
    down, up = (side[name].weight.detach().float().cpu() for side in (layer.lora_A, layer.lora_B))
    return down, up, float(layer.scaling[name])


def _joined(layer: Any, names: Sequence[str], combination: Combination) -> Thin:
    """The weighted sum of the updates, exactly: ``[B1, B2] [w1 s1 A1; w2 s2 A2]``, as PEFT's ``cat`` has it."""
    pairs = [
        (weight, *_matrices(layer, name))
        for weight, name in zip(combination.weights, names, strict=True)
        if name in layer.lora_A
    ]
    down = torch.cat([matrix * (weight * scale) for weight, matrix, _, scale in pairs], dim=0)
    return down, torch.cat([up for _, _, up, _ in pairs], dim=1)


def _combined(layer: Any, names: Sequence[str], combination: Combination, path: str) -> Tensor:
    """The combined update of a layer, (out, in), by PEFT's functions."""
    present = [
        (weight, name) for weight, name in zip(combination.weights, names, strict=True) if name in layer.lora_A
    ]
    updates = []
    for _, name in present:
        down, up, scale = _matrices(layer, name)
        updates.append(up @ down * scale)
    weights = torch.tensor([weight for weight, _ in present])
    density, sign = combination.density, combination.majority_sign
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="The density")  # 1 keeps everything, as asked
        torch.manual_seed(layer_seed(combination.seed, path))
        by_name: dict[str, Callable[[], Tensor]] = {
            "linear": lambda: task_arithmetic(updates, weights),
            "ties": lambda: ties(updates, weights, density, sign),
            "dare_linear": lambda: dare_linear(updates, weights, density),
            "dare_ties": lambda: dare_ties(updates, weights, density, sign),
        }
        return by_name[combination.how]()


def _factors(update: Tensor) -> Thin:
    """An update as two factors without any loss: itself and ones."""
    out, width = update.shape
    return (torch.eye(width), update) if width <= out else (update, torch.eye(out))


def _best_factors(update: Tensor, rank: int) -> Thin:
    """The best approximation of a rank, by the eigenvectors of the smaller of ``U U^T`` and ``U^T U`` in float64."""
    exact = update.double()
    out, width = exact.shape
    is_wide = width > out
    _, directions = torch.linalg.eigh(exact @ exact.T if is_wide else exact.T @ exact)
    kept = directions[:, -rank:].flip(1)  # the largest first
    down, up = (kept.T @ exact, kept) if is_wide else (kept.T, exact @ kept)
    return down.float(), up.float()


def _targets(model: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """Names that mean these layers and no others: last parts of names where that is true, else whole names."""
    kinds = {layer.rpartition(".")[2] for layer in layers}
    alike = {
        path.removeprefix(PEFT_PREFIX)
        for path, _ in model.named_modules()
        if path.rpartition(".")[2] in kinds and path.startswith(PEFT_PREFIX)
    }
    return tuple(sorted(kinds if alike == set(layers) else layers))


def _save(layers: dict[str, Thin], rank: int, targets: tuple[str, ...], folder: Path) -> None:
    """Write them with one rank for all, which engines read that know no patterns; the rest is zeros."""
    tensors = {}
    for name, (down, up) in layers.items():
        spare = rank - down.shape[0]
        tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"] = nn.functional.pad(down, (0, 0, 0, spare)).contiguous()
        tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"] = nn.functional.pad(up, (0, spare)).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    # alpha = rank: the scale is 1, as A holds it all.
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=list(targets),
        rank_pattern={}, alpha_pattern={}, bias="none", init_lora_weights=True, use_rslora=False, use_dora=False,
    )  # fmt: skip
    config.save_pretrained(str(folder))
