"""What `fit` is given besides a model and examples: how to optimise, and what a method does within training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ftkit.train.batches import count_steps
from ftkit.train.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class FitSpec:
    """How to optimise, in plain values.

    Attributes:
        learning_rate: Peak.
        schedule: Course after the warm-up.
        warmup: Share of the steps with a rising rate.
        weight_decay: Decoupled, on matrices.
        max_grad_norm: Norm that gradients are scaled down to; 0 for never.
        epochs: Passes over the data, if ``max_steps`` does not end them.
        max_steps: Most optimizer steps, or None.
        batch_size: Examples in one optimizer step.
        micro_batch_size: Examples in one forward pass; divides ``batch_size``. Without effect on packs.
        packing: Whether the examples of a step share sequences, without padding (see `ftkit.train.isolation`).
        gradient_checkpointing: Recompute activations in the backward pass.
        compute: dtype of the matrix products.
        seed: Of the order of examples and of dropout.
        checkpoint_every: Steps between checkpoints.
        keep_last: Newest checkpoints kept.
        keep_best: Besides them, checkpoints with the lowest validation losses; with any, each validation has one.
        validate_every: Steps between validations.
        log_every: Steps between lines of metrics.
        folder: The run folder.
        learning_rate_factors: What the learning rate is multiplied by, all along its course, for parameters by their
            name in ``model.named_parameters()``; 1 for all others. LoRA+ (Hayou et al. 2024, arXiv:2402.12354) wants
            LoRA's B faster than its A.
        undecayed: Names of matrices that do not decay, because zero is not where they say nothing.
        trainable_parameters: How many the method declares to train; None for whatever requires a gradient.
        prompts_masked: Whether prompts are not to count towards the loss; only checked here.
    """

    learning_rate: float
    schedule: Schedule
    warmup: float
    weight_decay: float
    max_grad_norm: float
    epochs: float
    max_steps: int | None
    batch_size: int
    micro_batch_size: int
    packing: bool
    gradient_checkpointing: bool
    compute: torch.dtype
    seed: int
    checkpoint_every: int
    keep_last: int
    validate_every: int
    log_every: int
    folder: Path
    learning_rate_factors: Mapping[str, float] = field(default_factory=dict)
    undecayed: Collection[str] = ()
    keep_best: int = 0
    trainable_parameters: int | None = None
    prompts_masked: bool = False

    def total_steps(self, rows: int) -> int:
        """Optimizer steps for that many rows."""
        return count_steps(rows, batch_size=self.batch_size, epochs=self.epochs, max_steps=self.max_steps)


class TrainingHooks(Protocol):
    """What a method does within training, beyond the parameters that it adds.

    AdaLoRA, for one, holds its factors orthogonal by a penalty, moves rank between layers after each step, and
    remembers for that how much each triplet mattered. The losses that are reported stay the cross-entropy alone, so
    that methods compare; the gradient norm is that of the whole.
    """

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A scalar with gradient that is added once to each optimizer step's loss, or None.

        A function of the parameters alone. They stand still within a step, so it is asked for and added once, in the
        step's last forward pass: the same for every micro batch size, and cheaper than a share in each pass.

        Args:
            model: The one given to `fit`; outside of any autocast.
        """
        ...

    def after_update(self, model: nn.Module, step: int, total_steps: int) -> None:
        """Act after the optimizer has changed the parameters, while the step's gradients are still in ``.grad``.

        Called without recording gradients, so parameters may be changed in place. The gradients are those of the
        optimizer: summed over the step, with the penalty, clipped.

        Args:
            model: The one given to `fit`.
            step: Optimizer steps done, this one included: from 1 to ``total_steps``.
            total_steps: Of the whole run.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to go on; no two of the tensors share memory."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave, on the CPU; called before the first step of a resumed run."""
        ...
