"""Canaries: what is looked at while a run trains, so that it stops in seconds when it can come to nothing.

Each step: loss and gradients are finite and the loss is not zero, before the optimizer changes anything; the course
of the losses is no divergence. The first steps: rows supervise what they should, gradients reach every tensor that is
declared to train, those move and nothing else does, and the first batch, seen again, has a lower loss. Nothing of it
changes what is trained: the extra forward passes draw nothing at random and keep no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.errors import TrainingStoppedError
from ftkit.notices import log
from ftkit.train.course import Observations, divergence
from ftkit.train.objective import Objective
from ftkit.train.soundness import fingerprints, is_finite, require_finite, some

FIRST_STEPS = 3  # LoRA's A has a gradient from the second on, when B is no longer zero
# Steps after which the first batch is seen again, until its loss is lower once. A rate in its warm-up changes little
# at first, and a high one may overshoot for a few steps; after so many, a run that learns has learnt this batch.
SEEN_AGAIN = (1, 2, 4, 8, 16)

Rows = Callable[[int], Sequence[Any]]


class Canaries:
    """Watches one run.

    Args:
        model: What is trained, on its device.
        rows: Gives the examples of an optimizer step, counted from 1.
        seen: Of a run that is resumed.
        objective: What is minimised.
        learns: Whether the learning rate is above zero; at zero, only gradients are of interest.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Rows,
        seen: Observations,
        objective: Objective,
        *,
        learns: bool = True,
    ) -> None:
        self.model, self.rows, self.seen = model, rows, seen
        self._objective, self._learns = objective, learns
        self._declared = {name for name, value in model.named_parameters() if value.requires_grad}
        self._frozen: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._reached: set[str] = set()
        self._moved: set[str] = set()

    def begin(self, optimizer: Any, *, declared: int | None) -> None:
        """Look at the model before its first step, of this process.

        Args:
            optimizer: That trains it.
            declared: How many parameters the method says it trains; None for whatever requires a gradient.

        Raises:
            TrainingStoppedError: Weights are not finite, or what trains is not what is declared.
        """
        require_finite(self.model)
        trained = dict(self._trained())
        count = sum(value.numel() for value in trained.values())
        if declared is not None and count != declared:
            raise TrainingStoppedError(
                f"the method declares {declared} parameters to train, and {count} require a gradient",
                fix="Something froze or thawed weights after the method was attached; see what was called on the "
                "model since.",
            )
        optimized = {id(value) for group in optimizer.param_groups for value in group["params"]}
        if forgotten := [name for name, value in trained.items() if id(value) not in optimized]:
            raise TrainingStoppedError(f"the optimizer does not have {some(forgotten)}, which should train")
        self._frozen = fingerprints(
            (name, value) for name, value in self.model.named_parameters() if name not in self._declared
        )

    def before_update(self, step: int, *, loss: float, norm: float) -> None:
        """Judge a step before the optimizer acts on it.

        Args:
            step: Counted from 1.
            loss: Mean over its supervised tokens.
            norm: Of its gradients, before they were scaled down.

        Raises:
            TrainingStoppedError: With the rows concerned.
        """
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self._not_finite(step, loss, norm)
        if loss == 0.0:
            raise TrainingStoppedError(
                f"step {step}: the loss is exactly 0. {self._masked(step) or self._places(step)}",
                fix="Nothing is left to learn from these rows: no token of them counts, or the model knows them by "
                "heart. The checkpoints before are intact.",
            )
        if step <= FIRST_STEPS:
            self._look_at_rows(step)
            self._look_at_gradients(step, loss)
        if step == 1:
            self.seen.first_batch = self._first_batch()
            self.seen.guessing = max(loss, self._objective.guessing(self.model))
        if found := divergence(self.seen, loss):
            raise TrainingStoppedError(
                f"step {step}: training diverges: {found}. {self._by_loss(step)}",
                fix="Lower train.learning_rate, raise train.warmup, or look at these rows. The checkpoints before "
                "are intact.",
            )

    def after_update(self, step: int, total_steps: int) -> None:
        """Judge what the optimizer did.

        Raises:
            TrainingStoppedError: The wrong weights moved, or nothing is learnt.
        """
        if step <= FIRST_STEPS:
            now = fingerprints((name, value) for name, value in self._trained() if name in self._before)
            self._moved |= {name for name, value in now.items() if value != self._before[name]}
        # A run that is resumed within the first steps looks at fewer of them, and has nothing to compare.
        if self._learns and step == min(FIRST_STEPS, total_steps) and self._before:
            self._look_at_movement(step)
        if step in (min(FIRST_STEPS, total_steps), total_steps):
            self._require_frozen(step)
        if (
            self._learns
            and not self.seen.learnt
            and (step in SEEN_AGAIN or (step == total_steps and step < SEEN_AGAIN[-1]))
        ):
            self._see_again(step)

    def require_sound(self, step: int) -> None:
        """Refuse to save what is not finite.

        Raises:
            TrainingStoppedError: With the names of the tensors.
        """
        bad = [name for name, value in self._trained() if not is_finite(value)]
        if bad:
            raise TrainingStoppedError(
                f"step {step}: {some(bad)} hold NaN or infinite values, so nothing was saved",
                fix="Lower train.learning_rate. The checkpoints before are intact.",
            )

    def _trained(self) -> Iterable[tuple[str, Tensor]]:
        return ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)

    def _look_at_rows(self, step: int) -> None:
        if fault := self._objective.row_fault(self.rows(step)):
            raise TrainingStoppedError(f"step {step}: {fault[0]}", fix=fault[1])

    def _look_at_gradients(self, step: int, loss: float) -> None:
        trained = dict(self._trained())
        if changed := trained.keys() ^ self._declared:
            raise TrainingStoppedError(
                f"step {step}: {some(sorted(changed))} were frozen or thawed while training",
                fix="Something called requires_grad_ on the model since training began.",
            )
        reached = {name for name, value in trained.items() if value.grad is not None and value.grad.any()}
        if not reached and self._reached:
            first = self.seen.recent[0]
            raise TrainingStoppedError(
                f"step {step}: all gradients have vanished; the loss went from {first:.4g} to {loss:.4g}",
                fix="Lower train.learning_rate: the model was driven to where it has no slope.",
            )
        if not reached:
            raise TrainingStoppedError(
                f"step {step}: no gradient reaches any weight that should train",
                fix="The forward pass cuts them off; with train.gradient_checkpointing, try without.",
            )
        self._reached |= reached
        self._before = fingerprints((name, trained[name]) for name in reached)

    def _look_at_movement(self, step: int) -> None:
        if not self._moved:
            raise TrainingStoppedError(
                f"after {step} steps no weight has moved, though gradients are there",
                fix="Raise train.learning_rate: each change was smaller than the weights' rounding.",
            )
        # In one step, what multiplies a zero has no gradient yet. Experts train when they are chosen, rows of an
        # embedding when their token comes.
        rare = {name for name in self._declared if "experts" in name or "embed" in name or "token_adapter" in name}
        cut_off = sorted(self._declared - self._reached - rare) if step > 1 else []
        if cut_off:
            raise TrainingStoppedError(
                f"after {step} steps {len(cut_off)} of {len(self._declared)} tensors that should train have had no "
                f"gradient: {some(cut_off)}",
                fix="They are no part of what computes the loss. Leave them out (method.target_modules, or "
                "method.parameters of a full fine-tune).",
            )

    def _require_frozen(self, step: int) -> None:
        now = fingerprints((name, value) for name, value in self.model.named_parameters() if name in self._frozen)
        if changed := sorted(name for name, value in now.items() if value != self._frozen[name]):
            raise TrainingStoppedError(
                f"after {step} steps weights have changed that this method keeps frozen: {some(changed)}",
                fix="Something writes into the base while it trains, so the export would not be what was trained.",
            )

    def _see_again(self, step: int) -> None:
        before, now = self.seen.first_batch, self._first_batch()
        if before is None:
            return
        self.seen.learnt = now < before
        if self.seen.learnt:
            return
        said = (
            f"the first batch, seen again after {step} steps, has a loss of {now:.4g}; before training {before:.4g}"
        )
        if step >= SEEN_AGAIN[-1] and self._objective.must_learn:
            raise TrainingStoppedError(
                f"{said}, and it was never lower. {self._places(1)}",
                fix=f"{'Raise' if now == before else 'Lower'} train.learning_rate.",
            )
        if step not in SEEN_AGAIN[:-1]:  # the end of a short run, or an objective that may have nothing to learn
            log.warning("%s, and it was never lower: nothing is learnt yet", said)

    def _first_batch(self) -> float:
        """Loss of the first row of the first step, or of several if they are short."""
        rows, tokens, some = self.rows(1), 0, []
        for row in rows:
            some.append(row)
            tokens += self._objective.size(row)
            if tokens >= 256:  # enough to tell, and little beside a step
                break
        return self._loss_of(some)

    def _loss_of(self, rows: Sequence[Any]) -> float:
        devices = {value.device for value in self.model.parameters() if value.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            return self._objective.mean_loss(self.model, rows)

    def _not_finite(self, step: int, loss: float, norm: float) -> TrainingStoppedError:
        """Why: weights, rows without a token that counts, or rows that alone give no number."""
        said = f"step {step}: the loss is {loss} and the gradient norm {norm}"
        fix = "Lower train.learning_rate, or look for damaged rows. The checkpoints before are intact."
        bad = [name for name, value in self.model.named_parameters() if not is_finite(value)]
        if bad:
            return TrainingStoppedError(f"{said}; {some(bad)} hold NaN or infinite values", fix=fix)
        if masked := self._masked(step):
            return TrainingStoppedError(f"{said}; {masked}", fix=fix)
        return TrainingStoppedError(f"{said}. {self._by_loss(step)}", fix=fix)

    def _by_loss(self, step: int) -> str:
        """A step's rows, each by itself: those without a number, else those that are hardest."""
        losses = [(self._loss_of([row]), row.place) for row in self.rows(step)]
        if guilty := [place for value, place in losses if not math.isfinite(value)]:
            return f"These rows give no number by themselves: {some(guilty)}."
        worst = [f"{place} ({value:.4g})" for value, place in sorted(losses, key=lambda entry: -entry[0])]
        return f"Its rows by their loss: {some(worst)}."

    def _masked(self, step: int) -> str:
        return self._objective.masked(self.rows(step))

    def _places(self, step: int) -> str:
        return f"Its rows: {some([row.place for row in self.rows(step)])}."
