"""The gradient of one optimizer step, computed row by row, in one pass, and in packs, by the trainer itself."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.data.collate import collate_packed
from ftkit.data.example import TokenizedExample, lengths_of
from ftkit.data.stream import StreamedExamples
from ftkit.pipeline.session import Session, open_session
from ftkit.recipe import Recipe
from ftkit.train.batches import StepSampler, tokens_per_pack
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.spec import FitSpec, TrainingHooks
from ftkit.train.trainer import fit

# Tokens of the one pass that holds all rows, padding included: more than in training, where a pass is as small as the
# device likes it, and few enough for a machine that the run itself fits.
TOKENS_IN_ONE_PASS = {"cpu": 2048, "cuda": 8192}
# Of what an untrained attachment holds at zero, such as LoRA's B: as wide as the weights of common models.
WAKING_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far two ways to compute one step are apart.

    Attributes:
        gradient: Norm of the difference of all gradients over the norm of the gradients.
        loss: Difference of the losses over the loss.
        worst: The parameter whose gradients differ most.
    """

    gradient: float
    loss: float
    worst: str


def measure_step(recipe: Recipe) -> dict[str, Any]:
    """Compute one step of a recipe in each way.

    Returns:
        ``rows`` of the step, ``compute`` dtype, ``exact`` (whether 8-bit products were replaced by exact ones),
        ``packs`` that the rows fill, and the distances to row by row: ``together`` of all rows in one pass and
        ``packed``, each with `Distance`'s keys. ``together`` is None where there is only one row, ``packed`` where no
        two rows share a pack or packing is off.

    Raises:
        FtkitError: As `ftkit.pipeline.run.run` does.
    """
    session = open_session(recipe)
    data = session.prepare_data()
    model = session.attach(session.load_base())
    session.start(model, data)
    wake(model, seed=recipe.train.seed)
    budget = TOKENS_IN_ONE_PASS.get(session.device.type, TOKENS_IN_ONE_PASS["cpu"])
    rows = rows_of_a_step(data.train, batch_size=recipe.train.batch_size, seed=recipe.train.seed, budget=budget)
    packs = len(collate_packed(rows, pack_length=tokens_per_pack(session.device.type))["pack_lengths"])
    found: dict[str, Any] = {
        "rows": len(rows),
        "compute": str(session.precision.compute).removeprefix("torch."),
        "exact": not session.method.exact_forward,
        "packs": packs,
        "together": None,
        "packed": None,
    }
    packing = recipe.data.packing is not False and session.method.packs and packs < len(rows)
    with tempfile.TemporaryDirectory(prefix="ftkit-selftest-steps-") as scratch, _comparable(session, model):
        steps = _Steps(session, model, rows, Path(scratch))
        if len(rows) > 1:
            alone = steps.take(micro_batch_size=1)
            found["together"] = vars(distance(alone, steps.take(micro_batch_size=len(rows))))
            if packing:
                found["packed"] = vars(distance(alone, steps.take(micro_batch_size=1, packing=True)))
    return found


def rows_of_a_step(
    train: Sequence[TokenizedExample], *, batch_size: int, seed: int, budget: int
) -> list[TokenizedExample]:
    """The rows of the first step, without the longest where they are too many tokens for one pass.

    Returns:
        At least two where the data has them, the longest first.
    """
    if isinstance(train, StreamedExamples):
        order: Sequence[int] = range(min(batch_size, len(train)))
    else:
        sampler = StepSampler(lengths_of(train), batch_size=batch_size, seed=seed)
        order = [index for index, _ in zip(sampler, range(batch_size), strict=False)]
    rows = sorted((train[index] for index in order), key=lambda row: -len(row.input_ids))
    while len(rows) > 2 and len(rows) * len(rows[0].input_ids) > budget:
        del rows[0]
    return rows


@torch.no_grad()
def wake(model: nn.Module, *, seed: int) -> None:
    """Move what trains and is zero, so that no gradient vanishes behind it: that of LoRA's A does while B is zero."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.parameters():
        if value.requires_grad and not value.any():
            value.copy_(torch.randn(value.shape, generator=generator) * WAKING_STD)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Attributes: gradients: by parameter, on the CPU. loss: as the trainer logs it."""

    gradients: dict[str, Tensor]
    loss: float


def distance(step: Step, other: Step) -> Distance:
    """How far ``other`` is from ``step``; no gradient, as of an expert that nothing chose, counts as zero."""
    mine, theirs = step.gradients, other.gradients
    apart = {
        name: _norm(mine[name] - theirs[name] if name in mine and name in theirs else (mine | theirs)[name])
        for name in mine | theirs
    }
    whole = sum(_norm(value) ** 2 for value in mine.values()) ** 0.5
    return Distance(
        gradient=sum(value**2 for value in apart.values()) ** 0.5 / (whole or 1.0),
        loss=abs(other.loss - step.loss) / (abs(step.loss) or 1.0),
        worst=max(apart, key=lambda name: apart[name]),
    )


def _norm(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value, dtype=torch.float64))


class _Steps:
    """Takes the same step again and again: at a learning rate of zero, the model stays what it is."""

    def __init__(self, session: Session, model: nn.Module, rows: list[TokenizedExample], scratch: Path) -> None:
        self.session, self.model, self.rows, self.scratch = session, model, rows, scratch
        self.taken = 0

    def take(self, *, micro_batch_size: int, packing: bool = False) -> Step:
        """Let the trainer compute the step, cut in this way."""
        self.taken += 1
        folder = self.scratch / str(self.taken)
        hooks = _Watch(self.session.method.training_hooks(self.model, self.session.recipe.train.max_steps))
        train = self.session.recipe.train
        spec = FitSpec(
            learning_rate=0.0, schedule="constant", warmup=0.0, weight_decay=0.0, max_grad_norm=0.0, epochs=1.0,
            max_steps=1, batch_size=len(self.rows), micro_batch_size=micro_batch_size, packing=packing,
            gradient_checkpointing=train.gradient_checkpointing, compute=self.session.precision.compute,
            seed=train.seed, checkpoint_every=1, keep_last=1, validate_every=1, log_every=1, folder=folder,
        )  # fmt: skip
        fit(self.model, self.rows, [], spec, hooks=hooks)
        loss = MetricsLog(folder / "metrics.jsonl").read()[-1]["loss"]
        return Step(gradients=hooks.gradients, loss=loss)


class _Watch:
    """The method's own hooks as far as they make the gradient, which is kept; see `TrainingHooks`."""

    def __init__(self, hooks: TrainingHooks | None) -> None:
        self.hooks = hooks
        self.gradients: dict[str, Tensor] = {}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """The method's."""
        return None if self.hooks is None else self.hooks.penalty(model)

    def after_update(self, model: nn.Module, step: int, total_steps: int) -> None:
        """Keep the gradients. The method does not act: it would change the model between two steps to compare."""
        del step, total_steps
        self.gradients = {
            name: value.grad.detach().cpu().clone()
            for name, value in model.named_parameters()
            if value.grad is not None
        }

    def state(self) -> dict[str, Tensor]:
        """Nothing goes on from here."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """See `state`."""


@contextlib.contextmanager
def _comparable(session: Session, model: nn.Module) -> Iterator[None]:
    """A block without what makes a row's result depend on the shape of its pass by design."""
    # bitsandbytes chooses the outliers of 8-bit products for all rows of a pass together.
    exact = contextlib.nullcontext() if session.method.exact_forward else session.method.float32_arithmetic(model)
    with exact, without_dropout(model):
        yield


@contextlib.contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """A block in which training mode draws nothing: dropout draws other numbers for passes of other shapes.

    A module keeps its rate under ``p``, or reads it from an attribute or the model's config with a name of its own.
    """
    places: list[Any] = list(model.modules())
    configs = [getattr(module, "config", None) for module in places]
    places += list({id(config): config for config in configs if config is not None}.values())
    before: list[tuple[Any, str, float]] = []
    for place in places:
        for name, value in list(vars(place).items()):
            is_rate = "drop" in name or "jitter" in name or (name == "p" and "Dropout" in type(place).__name__)
            if is_rate and isinstance(value, float) and value > 0:
                before.append((place, name, value))
                setattr(place, name, 0.0)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
