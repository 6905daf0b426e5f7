"""What happens when in training: epochs begin, the method acts, and steps end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftkit.train.batches import StepSampler
from ftkit.train.canaries import Canaries
from ftkit.train.spec import FitSpec, TrainingHooks


class Watched(Protocol):
    """The trainer, as far as its moments concern it."""

    model: nn.Module
    spec: FitSpec
    validation: Sequence[Any]
    sampler: StepSampler
    hooks: TrainingHooks | None
    stop: threading.Event
    canaries: Canaries | None
    optimizer: Any
    step_loss: float
    grad_norm: float


class Moments(TrainerCallback):
    """Tells the sampler of epochs and the method of updates, and ends steps in a validation, a checkpoint or a stop.

    Args:
        trainer: Whose steps these are.
    """

    def __init__(self, trainer: Watched) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Look at the model, its checkpoint loaded."""
        if self.trainer.canaries is not None:
            self.trainer.canaries.begin(self.trainer.optimizer, declared=self.trainer.spec.trainable_parameters)

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Stop before the optimizer puts into the weights what is no number."""
        loss, self.trainer.step_loss = self.trainer.step_loss, 0.0
        if self.trainer.canaries is not None:
            self.trainer.canaries.before_update(state.global_step + 1, loss=loss, norm=self.trainer.grad_norm)

    def on_epoch_begin(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Choose the epoch's order of examples."""
        # After a resume the Trainer skips batches through a wrapper that forwards no epoch to the sampler.
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Let the method act on the update."""
        # The one moment between the optimizer's step and the end of its gradients; the step is counted only later.
        if self.trainer.hooks is not None:
            with torch.no_grad():
                self.trainer.hooks.after_update(self.trainer.model, state.global_step + 1, state.max_steps)
        if self.trainer.canaries is not None:
            self.trainer.canaries.after_update(state.global_step + 1, state.max_steps)

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for what the step ends in."""
        spec, step = self.trainer.spec, state.global_step
        last = step >= state.max_steps
        stopping = self.trainer.stop.is_set()
        control.should_evaluate = bool(self.trainer.validation) and (last or step % spec.validate_every == 0)
        judged = control.should_evaluate and spec.keep_best > 0
        control.should_save = last or stopping or judged or step % spec.checkpoint_every == 0
        # No checkpoint without a line before it: logging is what notices a NaN, and a line that spans a checkpoint
        # would lack the steps before it when the run is resumed there.
        control.should_log = control.should_log or control.should_save
        control.should_training_stop = last or stopping
        return control
