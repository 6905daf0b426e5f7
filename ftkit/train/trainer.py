"""`fit`: the one place where transformers' Trainer is called.

Why the Trainer and not TRL's SFTTrainer: SFTTrainer's added value is its own data preparation (templates, masks,
truncation, packing), which is exactly what ftkit does itself and proves; given tokenised rows it would only add
defaults to switch off (max_length 1024 cuts in silence, gradient checkpointing, bf16, loss on full conversations).
What is left of use, the loop, devices and accumulation, is the Trainer's. Checkpoints are ours, because the Trainer's
are pickles and are visible while they are being written.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ftkit.data.collate import collate
from ftkit.data.tokenize import TokenizedExample
from ftkit.errors import ResourceError, TrainingStoppedError
from ftkit.evaluate.loss import mean_loss, summed_loss
from ftkit.machine import PeakMemory
from ftkit.models.load import quiet_transformers
from ftkit.models.precision import arithmetic
from ftkit.train.allocator import keep_freed_memory
from ftkit.train.batches import StepSampler, count_steps
from ftkit.train.checkpoint import (
    checkpoint_folder,
    is_whole,
    load_optimizer,
    load_random_states,
    load_trainable,
    read_counters,
    remove_old_checkpoints,
    save_checkpoint,
)
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.progress import ProgressBar
from ftkit.train.schedule import Schedule, rate_factor


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
        micro_batch_size: Examples in one forward pass; divides ``batch_size``.
        gradient_checkpointing: Recompute activations in the backward pass.
        compute: dtype of the matrix products.
        seed: Of the order of examples and of dropout.
        checkpoint_every: Steps between checkpoints.
        keep_last: Checkpoints kept.
        validate_every: Steps between validations.
        log_every: Steps between lines of metrics.
        folder: The run folder.
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
    gradient_checkpointing: bool
    compute: torch.dtype
    seed: int
    checkpoint_every: int
    keep_last: int
    validate_every: int
    log_every: int
    folder: Path

    def total_steps(self, rows: int) -> int:
        """Optimizer steps for that many rows."""
        return count_steps(rows, batch_size=self.batch_size, epochs=self.epochs, max_steps=self.max_steps)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What training gave.

    Attributes:
        steps: Optimizer steps done in all.
        total_steps: Steps that were planned.
        first_loss: Training loss of the first step.
        last_loss: Training loss of the last step.
        validation_loss: After the last step; None without validation rows.
        tokens: Tokens trained on that are not padding.
        wall_s: Seconds in the training loop, over all resumes.
        tokens_per_s: Their ratio.
        peak_memory_bytes: Of this process and its children.
        cuda_peak_memory_bytes: None without CUDA.
        interrupted: Whether a signal ended it early.
    """

    steps: int
    total_steps: int
    first_loss: float
    last_loss: float
    validation_loss: float | None
    tokens: int
    wall_s: float
    tokens_per_s: float
    peak_memory_bytes: int
    cuda_peak_memory_bytes: int | None
    interrupted: bool


@dataclass
class Counters:
    """What a run has counted; saved with each checkpoint, so that a resumed run goes on counting."""

    tokens: int = 0
    supervised_tokens: int = 0
    wall_s: float = 0.0
    first_loss: float = math.nan
    last_loss: float = math.nan
    validation_loss: float | None = None
    peak_memory_bytes: int = 0
    cuda_peak_memory_bytes: int | None = None


def fit(
    model: nn.Module,
    train: Sequence[TokenizedExample],
    validation: Sequence[TokenizedExample],
    spec: FitSpec,
    *,
    resume_from: Path | None = None,
) -> TrainResult:
    """Train what ``requires_grad``, in place.

    Args:
        model: On its device, the method attached.
        train: Examples to train on.
        validation: Examples held back; may be empty.
        spec: How.
        resume_from: A checkpoint of the same run.

    Raises:
        TrainingStoppedError: The loss or the gradients became NaN or infinite.
        ResourceError: A step did not fit into memory.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    total = spec.total_steps(len(train))
    done = int(resume_from.name.removeprefix("step-")) if resume_from else 0
    if resume_from is not None and done >= total:
        load_trainable(model, resume_from)
        return _result(Counters(**read_counters(resume_from)), steps=done, total=total, interrupted=False)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftkit-trainer-")))
        memory = stack.enter_context(PeakMemory())
        with quiet_transformers():
            trainer = _StepTrainer(model, train, validation, spec, _arguments(spec, total, device, scratch), memory)
        if resume_from is not None:
            trainer.counters = Counters(**read_counters(resume_from))
        trainer.bar = stack.enter_context(ProgressBar("training", total, done=done))
        trainer.stop = stack.enter_context(_stop_on_signals())
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
    steps = trainer.state.global_step
    interrupted = trainer.stop.is_set() and steps < total
    return _result(trainer.counters, steps=steps, total=total, interrupted=interrupted)


def _result(counters: Counters, *, steps: int, total: int, interrupted: bool) -> TrainResult:
    """Sum up."""
    return TrainResult(
        steps=steps,
        total_steps=total,
        first_loss=counters.first_loss,
        last_loss=counters.last_loss,
        validation_loss=counters.validation_loss,
        tokens=counters.tokens,
        wall_s=counters.wall_s,
        tokens_per_s=counters.tokens / max(counters.wall_s, 1e-9),
        peak_memory_bytes=counters.peak_memory_bytes,
        cuda_peak_memory_bytes=counters.cuda_peak_memory_bytes,
        interrupted=interrupted,
    )


def _arguments(spec: FitSpec, total: int, device: torch.device, scratch: Path) -> TrainingArguments:
    """Every setting that changes numbers or writes files is named; the Trainer's defaults move between releases."""
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=total,
        per_device_train_batch_size=spec.micro_batch_size,
        gradient_accumulation_steps=spec.batch_size // spec.micro_batch_size,
        learning_rate=spec.learning_rate,
        warmup_steps=0,  # `create_scheduler` has the schedule
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=False,  # `compute_loss` opens its own autocast, and only around the forward pass
        fp16=False,
        tf32=None,
        average_tokens_across_devices=True,
        logging_strategy="steps",
        logging_steps=spec.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of the losses before it
        eval_strategy="no",  # `_Schedule` asks for validations, checkpoints and the stop
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=device.type == "cpu",
        push_to_hub=False,
    )
    # With several GPUs in one process the Trainer would wrap the model in DataParallel and multiply the batch by
    # their number; several devices are several processes (torchrun) or none.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


class _Examples(Dataset[TokenizedExample]):
    def __init__(self, examples: Sequence[TokenizedExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TokenizedExample:
        return self.examples[index]


class _Schedule(TrainerCallback):
    """When to validate, to save and to stop."""

    def __init__(self, trainer: _StepTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # After a resume the Trainer skips batches through a wrapper that forwards no epoch to the sampler.
        self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        spec, step = self.trainer.spec, state.global_step
        last = step >= state.max_steps
        stopping = self.trainer.stop.is_set()
        control.should_evaluate = bool(self.trainer.validation) and (last or step % spec.validate_every == 0)
        control.should_save = last or stopping or step % spec.checkpoint_every == 0
        # No checkpoint without a line before it: logging is what notices a NaN, and a line that spans a checkpoint
        # would lack the steps before it when the run is resumed there.
        control.should_log = control.should_log or control.should_save
        control.should_training_stop = last or stopping
        return control


class _StepTrainer(Trainer):
    """The Trainer with our batches, our loss, our log and our checkpoints."""

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[TokenizedExample],
        validation: Sequence[TokenizedExample],
        spec: FitSpec,
        arguments: TrainingArguments,
        memory: PeakMemory,
    ) -> None:
        self.spec, self.validation, self.memory = spec, validation, memory
        self.counters = Counters()
        self.log_file = MetricsLog(spec.folder / "metrics.jsonl")
        self.bar = ProgressBar("training", 1)
        self.stop = threading.Event()
        lengths = [len(example.input_ids) for example in train]
        self.sampler = StepSampler(lengths, batch_size=spec.batch_size, seed=spec.seed)
        super().__init__(model=model, args=arguments, train_dataset=_Examples(train), data_collator=collate)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(_Schedule(self))
        # Our loss is already divided by the step's tokens; the Trainer must count them and divide no more.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        if spec.gradient_checkpointing:
            # Renamed in transformers 5; the old name goes with version 6.
            name = "activation_checkpointing_enable"
            enable = getattr(model, name, None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            if hasattr(model, "enable_input_require_grads"):
                model.enable_input_require_grads()

    def start_clock(self) -> None:
        """Begin counting seconds and tokens per second."""
        self._started = self._logged_at = time.perf_counter()
        self._wall_before, self._logged_tokens = self.counters.wall_s, self.counters.tokens

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        return self.sampler

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Our schedule; see `ftkit.train.schedule.rate_factor`."""
        if getattr(self, "lr_scheduler", None) is None:
            factor = functools.partial(
                rate_factor,
                schedule=self.spec.schedule,
                warmup_steps=math.ceil(self.spec.warmup * num_training_steps),
                total_steps=num_training_steps,
            )
            self.lr_scheduler: LambdaLR = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Mean over the supervised tokens of the whole optimizer step, whatever it is cut into."""
        assert not return_outputs, "only the training loop calls this"
        self.counters.tokens += int(inputs["attention_mask"].sum())
        self.counters.supervised_tokens += int((inputs["labels"][:, 1:] != -100).sum())
        device = inputs["input_ids"].device
        with arithmetic(device, self.spec.compute):
            loss = summed_loss(model, inputs) / num_items_in_batch
        # Gradients are averaged over processes; the count above is of all of them.
        return loss * self.accelerator.num_processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss, each token counting the same, as one line of metrics."""
        loss = mean_loss(self.model, self.validation, compute=self.spec.compute).mean
        if not math.isfinite(loss):
            raise TrainingStoppedError(
                f"step {self.state.global_step}: the validation loss is {loss}",
                fix="Lower train.learning_rate, or look for damaged rows. The last checkpoint is intact.",
            )
        self.counters.validation_loss = loss
        self._write({"validation_loss": loss})
        self.control.should_evaluate = False
        return {"eval_loss": loss}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """One line of metrics; the Trainer's closing summary is left out."""
        self.control.should_log = False
        if "loss" not in logs:
            return
        loss, norm = logs["loss"], logs.get("grad_norm", math.nan)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingStoppedError(
                f"step {self.state.global_step}: the loss is {loss} and the gradient norm {norm}",
                fix="Lower train.learning_rate, or look for damaged rows. The last checkpoint is intact.",
            )
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
        line = {"step": self.state.global_step, "epoch": round(self.state.epoch or 0.0, 6), **facts}
        line |= {
            "tokens": counters.tokens,
            "supervised_tokens": counters.supervised_tokens,
            "wall_s": round(counters.wall_s, 3),
            "peak_memory_bytes": counters.peak_memory_bytes,
        }
        self.log_file.write(line)

    def _count_time_and_memory(self) -> None:
        self.counters.wall_s = self._wall_before + time.perf_counter() - self._started
        self.counters.peak_memory_bytes = max(self.counters.peak_memory_bytes, self.memory.bytes)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.spec.folder / "checkpoints"
        target = checkpoint_folder(folder, self.state.global_step)
        if is_whole(target):
            return
        shutil.rmtree(target, ignore_errors=True)  # a damaged one, which a resume passed over
        self._count_time_and_memory()
        state = json.dumps(self.state.__dict__ | {"log_history": []}, default=str)
        save_checkpoint(
            target,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.lr_scheduler,
            trainer_state=state,
            counters=vars(self.counters),
        )
        remove_old_checkpoints(folder, self.spec.keep_last)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trainable(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_states(Path(checkpoint))


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
