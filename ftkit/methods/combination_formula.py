"""What a weighted combination of adapters is: the papers' formulas on whole updates, in plain torch.

`ftkit.methods.combination` computes combinations with PEFT's functions; what it writes is held to this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ftkit.methods.lora_file import Matrices

How = Literal["linear", "ties", "dare_linear", "dare_ties"]
MajoritySign = Literal["total", "frequency"]
Adapters = Sequence[Mapping[str, Matrices]]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """How adapters are combined.

    Attributes:
        weights: One for each adapter, in their order.
        how: ``linear``: the weighted sum of the updates. ``ties``: in each layer each update keeps its largest
            entries; entry by entry the sign of most is elected, and the mean is taken of the weighted entries that
            have it. ``dare_linear``: each update loses entries at random, the others grow to make up for it, then the
            weighted sum. ``dare_ties``: that dropping, then sign and mean as in ``ties``.
        density: The share of entries that stay, in (0, 1].
        majority_sign: Elect by the sum of the entries (``total``) or by their number (``frequency``).
        seed: Of DARE's draws.

    Source:
        Ilharco et al. 2022, arXiv:2212.04089 (sums); Yadav et al. 2023, arXiv:2306.01708 (TIES), which trims over
        all layers at once where PEFT and this trim within each; Yu et al. 2023, arXiv:2311.03099 (DARE).
    """

    weights: tuple[float, ...]
    how: How = "linear"
    density: float = 1.0
    majority_sign: MajoritySign = "total"
    seed: int = 0

    @property
    def is_random(self) -> bool:
        """Whether it draws what to drop."""
        return self.how.startswith("dare")

    @property
    def elects(self) -> bool:
        """Whether it elects signs."""
        return self.how.endswith("ties")


def layer_seed(seed: int, layer: str) -> int:
    """A seed for each layer, so that its draws depend on no other layer and on no order."""
    return int.from_bytes(hashlib.sha256(f"{seed} {layer}".encode()).digest()[:4], "big")


def expected_update(combination: Combination, adapters: Adapters, layer: str) -> Tensor:
    """The combined update of one layer, worked out from the adapters' own matrices.

    Args:
        combination: How.
        adapters: In the order of the weights; one without this layer leaves it as it is.
        layer: Its name in the base.

    Returns:
        (out, in), float64.
    """
    present = [
        (weight, adapter[layer])
        for weight, adapter in zip(combination.weights, adapters, strict=True)
        if layer in adapter
    ]
    # As float32 like PEFT's products, so that both sides compare the same magnitudes where entries are trimmed.
    updates = torch.stack([matrices.update() for _, matrices in present]).double()
    weights = torch.tensor([weight for weight, _ in present], dtype=torch.float64).view(-1, 1, 1)
    density = combination.density
    if combination.is_random and density < 1:
        draws = torch.Generator().manual_seed(layer_seed(combination.seed, layer))
        chances = torch.full(tuple(updates.shape[1:]), density)
        kept = torch.stack([torch.bernoulli(chances, generator=draws) for _ in present])
        updates = updates * kept / density
    elif combination.how == "ties" and density < 1:
        updates = torch.stack([_trimmed(update, density) for update in updates])
    if not combination.elects:
        return (weights * updates).sum(dim=0)
    votes = updates if combination.majority_sign == "total" else updates.sign()
    elected = torch.where(votes.sum(dim=0) >= 0, 1.0, -1.0)
    agrees = updates.sign() == elected
    return (weights * updates * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)


def expected_output(combination: Combination, adapters: Adapters, layer: str, hidden: Tensor) -> Tensor:
    """What a linear combination adds to one layer's output, without its whole update in memory.

    Args:
        combination: A ``linear`` one.
        adapters: As for `expected_update`.
        layer: Its name in the base.
        hidden: The layer's input, (..., in).

    Returns:
        (..., out), of the same dtype and device.
    """
    added = [
        functional.linear(functional.linear(hidden, one.down.to(hidden)), one.up.to(hidden)) * (weight * one.scale)
        for weight, adapter in zip(combination.weights, adapters, strict=True)
        if (one := adapter.get(layer)) is not None
    ]
    return torch.stack(added).sum(dim=0)


def _trimmed(update: Tensor, density: float) -> Tensor:
    """Zeros in place of all but the largest entries."""
    kept = int(density * update.numel())
    if kept == 0:
        return torch.zeros_like(update)
    smallest = update.abs().flatten().kthvalue(update.numel() - kept + 1).values
    return torch.where(update.abs() >= smallest, update, 0.0)
