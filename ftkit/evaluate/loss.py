"""Cross-entropy over supervised tokens."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ftkit.data.collate import collate
from ftkit.data.example import IGNORED, TokenizedExample, lengths_of
from ftkit.models.precision import arithmetic

# Tokens in one forward pass of a validation; no gradients are kept, so it may exceed a training step's.
TOKENS_PER_PASS = 1024


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Attributes: mean: nats per supervised token. tokens: how many tokens that is the mean of."""

    mean: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(mean)``; infinite where that overflows."""
        return math.exp(self.mean) if self.mean < 700 else math.inf


def summed_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum of the negative log-likelihoods of all supervised tokens of a batch.

    The output head runs only at positions that some row supervises, where the architecture allows it: for chat data
    that spares most of the largest matrix of a small model.

    Args:
        model: A causal language model, possibly wrapped.
        batch: As from `collate` or `split_packs` in `ftkit.data.collate`, on the model's device.

    Returns:
        Scalar, float32, with gradient.
    """
    logits, targets = supervised_logits(model, batch)
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def row_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The same, of each row by itself.

    Args:
        model: A causal language model, possibly wrapped.
        batch: As from `ftkit.data.collate.collate`, on the model's device.

    Returns:
        (rows,), float32, with gradient.
    """
    logits, targets = supervised_logits(model, batch)
    each = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return each.view_as(targets).sum(dim=1)


def supervised_logits(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, float32, and targets at the positions that some row supervises, or at all of them.

    Args:
        model: A causal language model, possibly wrapped.
        batch: As from `ftkit.data.collate.collate`, on the model's device.

    Returns:
        (rows, positions, vocabulary) and (rows, positions).
    """
    targets, length = batch["labels"][:, 1:], batch["labels"].shape[1]
    # Rows have a mask and packs have positions: a mask would hide from transformers that they are packs.
    inputs = {name: value for name, value in batch.items() if name != "labels"} | {"use_cache": False}
    # Positions are counted from the end: a soft prompt puts logits of its own in front of the text's.
    if keeps_chosen_logits(model):
        kept = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=kept - length).logits
        targets = targets[:, kept]
    else:
        logits = model(**inputs).logits[:, -length:-1]
    return logits.float(), targets


def keeps_chosen_logits(model: nn.Module) -> bool:
    """Whether the model's forward pass takes ``logits_to_keep`` as a tensor of positions."""
    inner: Any = model
    while hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return "logits_to_keep" in inspect.signature(type(inner).forward).parameters


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    examples: Sequence[TokenizedExample],
    *,
    compute: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
) -> Loss:
    """Mean loss over all supervised tokens of a set, each token counting the same.

    Args:
        model: In any mode; it is evaluated without dropout and given back in its mode.
        examples: At least one.
        compute: dtype of the matrix products.
        progress: Called with examples done and examples in all.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        for start, indices in _by_length(lengths_of(examples)):
            group = [examples[index] for index in indices]
            batch = {name: value.to(device) for name, value in collate(group).items()}
            with arithmetic(device, compute):
                total += summed_loss(model, batch).item()
            tokens += int((batch["labels"][:, 1:] != IGNORED).sum())
            if progress is not None:
                progress(start + len(group), len(examples))
    finally:
        model.train(was_training)
    return Loss(mean=total / tokens, tokens=tokens)


@torch.no_grad()
def each_loss(
    model: nn.Module,
    examples: Sequence[TokenizedExample],
    *,
    compute: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
) -> list[Loss]:
    """The loss of each example by itself, in their order; see `mean_loss`."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found: dict[int, float] = {}
    try:
        for start, indices in _by_length(lengths_of(examples)):
            group = [examples[index] for index in indices]
            batch = {name: value.to(device) for name, value in collate(group).items()}
            with arithmetic(device, compute):
                found |= dict(zip(indices, row_losses(model, batch).tolist(), strict=True))
            if progress is not None:
                progress(start + len(group), len(examples))
    finally:
        model.train(was_training)
    tokens = [one.supervised_tokens for one in examples]
    return [Loss(mean=found[place] / count, tokens=count) for place, count in enumerate(tokens)]


def _by_length(lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Groups of examples of similar length, each within the token budget, with the count of examples before it."""
    groups: list[tuple[int, list[int]]] = []
    for done, index in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        if groups and (len(groups[-1][1]) + 1) * lengths[index] <= TOKENS_PER_PASS:
            groups[-1][1].append(index)
        else:
            groups.append((done, [index]))
    return groups
