"""`fit`: the one place where transformers' Trainer is called.

Why the Trainer and not TRL's SFTTrainer: SFTTrainer's added value is its own data preparation (templates, masks,
truncation, packing), which is exactly what ftkit does itself and proves; given tokenised rows it would only add
defaults to switch off (max_length 1024 cuts in silence, gradient checkpointing, bf16, loss on full conversations).
What is left of use, the loop, devices and accumulation, is the Trainer's. Checkpoints are ours, because the Trainer's
are pickles and are visible while they are being written.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ftkit.errors import ResourceError
from ftkit.machine import PeakMemory
from ftkit.models.load import quiet_transformers
from ftkit.train.allocator import keep_freed_memory
from ftkit.train.arguments import recompute_activations, training_arguments
from ftkit.train.batches import Examples, sampler_of
from ftkit.train.canaries import Canaries
from ftkit.train.checkpoint import (
    checkpoint_folder,
    is_whole,
    load_method_state,
    load_optimizer,
    load_random_states,
    load_trainable,
    read_counters,
    remove_old_checkpoints,
    save_checkpoint,
    step_of,
)
from ftkit.train.counters import Counters, TrainResult, train_result
from ftkit.train.course import Observations
from ftkit.train.documents import documents_cut
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.moments import Moments
from ftkit.train.objective import Objective, causal
from ftkit.train.optimizer import parameter_groups, rate_schedule
from ftkit.train.progress import ProgressBar
from ftkit.train.signals import stop_on_signals
from ftkit.train.soundness import require_number
from ftkit.train.spec import FitSpec, TrainingHooks


def fit(
    model: nn.Module,
    train: Sequence[Any],
    validation: Sequence[Any],
    spec: FitSpec,
    *,
    resume_from: Path | None = None,
    hooks: TrainingHooks | None = None,
    objective: Objective | None = None,
) -> TrainResult:
    """Train what ``requires_grad``, in place.

    Args:
        model: On its device, the method attached.
        train: Examples to train on.
        validation: Examples held back; may be empty.
        spec: How.
        resume_from: A checkpoint of the same run.
        hooks: What the method does within training.
        objective: What to minimise; None for next-token prediction on `ftkit.data.example.TokenizedExample`.

    Raises:
        TrainingStoppedError: The loss or the gradients became NaN or infinite.
        ResourceError: A step did not fit into memory.
        ValueError: The checkpoint, or a name in ``spec.learning_rate_factors``, is of another model or method.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    total, done = spec.total_steps(len(train)), step_of(resume_from) if resume_from else 0
    if resume_from is not None and done >= total:
        load_trainable(model, resume_from)
        load_method_state(hooks, resume_from)
        return train_result(Counters(**read_counters(resume_from)), steps=done, total=total, interrupted=False)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftkit-trainer-")))
        memory = stack.enter_context(PeakMemory())
        if spec.packing:
            stack.enter_context(documents_cut(model))
        with quiet_transformers():
            arguments = training_arguments(spec, total, device, scratch)
            trainer = _StepTrainer(model, train, validation, spec, arguments, objective or causal(spec, device))
        trainer.memory, trainer.hooks = memory, hooks
        if resume_from is not None:
            trainer.counters = Counters(**read_counters(resume_from))
        trainer.watch()
        trainer.bar = stack.enter_context(ProgressBar("training", total, done=done))
        trainer.stop = stack.enter_context(stop_on_signals())
        trainer.start_clock()
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"a training step did not fit into the device's memory: {str(error).splitlines()[0]}",
                fix="Set train.micro_batch_size lower, train.gradient_checkpointing=true, or data.max_length lower.",
            ) from None
        if device.type == "cuda":
            trainer.counters.cuda_peak_memory_bytes = torch.cuda.max_memory_allocated(device)
    stopped = trainer.stop.is_set()
    return train_result(trainer.counters, steps=trainer.state.global_step, total=total, interrupted=stopped)


class _StepTrainer(Trainer):
    """The Trainer with our batches, our optimizer, our loss, our log and our checkpoints."""

    optimizer: Any
    memory: PeakMemory
    hooks: TrainingHooks | None = None
    canaries: Canaries | None = None

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[Any],
        validation: Sequence[Any],
        spec: FitSpec,
        arguments: TrainingArguments,
        objective: Objective,
    ) -> None:
        self.spec, self.train_rows, self.validation, self.objective = spec, train, validation, objective
        self.counters = Counters()
        self.log_file = MetricsLog(spec.folder / "metrics.jsonl")
        self.bar = ProgressBar("training", 1)
        self.stop = threading.Event()
        self.sampler = sampler_of(train, batch_size=spec.batch_size, seed=spec.seed)
        self.step_loss, self.grad_norm, self.step_ends = 0.0, math.nan, True
        super().__init__(model=model, args=arguments, train_dataset=Examples(train), data_collator=objective.collate)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(Moments(self))
        # Our loss is divided by the step's items already; the Trainer must only count them.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True
        if spec.gradient_checkpointing:
            recompute_activations(model)

    def watch(self) -> None:
        """Let the canaries in."""
        self.canaries = Canaries(
            self.model,
            lambda step: [self.train_rows[index] for index in self.sampler.rows_of(step)],
            Observations(**self.counters.observations),
            self.objective,
            learns=self.spec.learning_rate > 0,
        )

    def start_clock(self) -> None:
        """Begin counting seconds and tokens per second."""
        self._started = self._logged_at = time.perf_counter()
        self._wall_before, self._logged_tokens = self.counters.wall_s, self.counters.tokens

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return self.sampler

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW over `ftkit.train.optimizer.parameter_groups`; which parameters decay stays the Trainer's choice."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(model, self.spec, decayed=self.get_decay_parameter_names(model))
            self.optimizer = kind(groups, **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Our schedule; see `ftkit.train.schedule.rate_factor`."""
        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler: LambdaLR = rate_schedule(optimizer or self.optimizer, self.spec, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """A forward and backward pass; with packing, one for each pack of the optimizer step."""
        losses, packs = [], self.objective.passes(inputs)
        for number, pack in enumerate(packs, start=1):
            self.step_ends = number == len(packs)
            # Once a step, for the other processes have other numbers of packs to wait for.
            waits = contextlib.nullcontext() if self.step_ends else self.accelerator.no_sync(model)
            with waits:
                losses.append(super().training_step(model, pack, num_items_in_batch))
        loss = torch.stack(losses).sum()
        self.step_loss += float(loss)
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        count = torch.tensor(float(sum(map(self.objective.items, batch_samples))), device=device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        clip, most = self.accelerator.clip_grad_norm_, self.args.max_grad_norm
        norms = [clip(part, most) for part in self.objective.clipped_apart(model)]
        return norms[0] if len(norms) == 1 else torch.stack(norms).norm()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = float(norm)
        return norm

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Mean over the items of the whole optimizer step, whatever it is cut into."""
        assert not return_outputs, "only the training loop calls this"
        tokens, supervised = self.objective.tokens(inputs)
        self.counters.tokens += tokens
        self.counters.supervised_tokens += supervised
        loss = self.objective.loss(model, inputs) / num_items_in_batch
        # Gradients are averaged over processes; the items are of all of them.
        return loss * self.accelerator.num_processes + self._penalty_gradient()

    def _penalty_gradient(self) -> Tensor | float:
        """Zero, with the gradient of the method's penalty in the step's last pass.

        Not times the number of processes: each of them adds the whole penalty, and the mean of those is one.
        """
        asked = self.hooks is not None and self.accelerator.sync_gradients and self.step_ends
        penalty = self.hooks.penalty(self.model) if asked and self.hooks is not None else None
        return 0.0 if penalty is None else penalty - penalty.detach()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss, each item counting the same, as one line of metrics."""
        loss = self.objective.mean_loss(self.model, self.validation)
        require_number(loss, f"step {self.state.global_step}: the validation loss")
        self.counters.validation_loss, self.counters.validated_at = loss, self.state.global_step
        self._write({"validation_loss": loss})
        self.control.should_evaluate = False
        return {"eval_loss": loss}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """One line of metrics; the Trainer's closing summary is left out."""
        self.control.should_log = False
        if "loss" not in logs:
            return
        loss, norm = logs["loss"], logs["grad_norm"]
        if math.isnan(self.counters.first_loss):
            self.counters.first_loss = loss
        self.counters.last_loss = loss
        now = time.perf_counter()
        rate = (self.counters.tokens - self._logged_tokens) / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_tokens = now, self.counters.tokens
        self._write({"loss": loss, "learning_rate": logs["learning_rate"], "grad_norm": norm, "tokens_per_s": rate})
        self.bar.update(self.state.global_step, f"loss {loss:.3f}  {rate:.0f} tokens/s")

    def _write(self, facts: dict[str, Any]) -> None:
        counters = self.counters
        self._count_time_and_memory()
        self.log_file.write(
            {
                "step": self.state.global_step,
                "epoch": round(self.state.epoch or 0.0, 6),
                **facts,
                "tokens": counters.tokens,
                "supervised_tokens": counters.supervised_tokens,
                "wall_s": round(counters.wall_s, 3),
                "peak_memory_bytes": counters.peak_memory_bytes,
            }
        )

    def _count_time_and_memory(self) -> None:
        self.counters.wall_s = self._wall_before + time.perf_counter() - self._started
        self.counters.peak_memory_bytes = max(self.counters.peak_memory_bytes, self.memory.bytes)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.spec.folder / "checkpoints"
        target = checkpoint_folder(folder, self.state.global_step)
        if is_whole(target):
            return
        shutil.rmtree(target, ignore_errors=True)  # a damaged one, which a resume passed over
        if self.canaries is not None:
            self.canaries.require_sound(self.state.global_step)
            self.counters.observations = self.canaries.seen.to_dict()
        self._count_time_and_memory()
        self.log_file.settle()
        state = json.dumps(self.state.__dict__ | {"log_history": []}, default=str)
        save_checkpoint(
            target,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            trainer_state=state,
            counters=vars(self.counters),
            method_state=self.hooks.state() if self.hooks is not None else {},
        )
        remove_old_checkpoints(folder, self.spec.keep_last, self.spec.keep_best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))
        load_method_state(self.hooks, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_states(Path(checkpoint))
