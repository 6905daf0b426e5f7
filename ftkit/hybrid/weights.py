"""How much each half of a mixture counts, chosen by what both say of the answers to questions of their own.

Both halves read each answer once; every weight is then arithmetic on what they said.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ftkit.errors import DataError, UsageError
from ftkit.rag.answering import RagSystem
from ftkit.rag.measuring import Finder
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion
from ftkit.train.progress import ProgressBar

WEIGHTS = tuple(step / 20 for step in range(21))
# Nats a token that rounding alone may make: weights that are no further apart do equally well.
TIED = 1e-6


class Parts(Protocol):
    """What both halves say of one answer, token by token."""

    @property
    def first(self) -> Tensor:
        """Log-probabilities by the half that weight 0 leaves alone, (tokens,), float64."""

    def second(self, temperature: float) -> Tensor:
        """The same by the half that weight 1 leaves alone; a token that it rules out has ``-inf``."""


@dataclass(frozen=True, kw_only=True)
class WeighedSystem(RagSystem, ABC):
    """A system that mixes two sources of next-token probabilities, ``(1 - weight) * first + weight * second``.

    Attributes:
        weight: Of the second one, from 0 to 1.
        temperature: Of the second one's own weights.
    """

    weight: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.weight <= 1:
            raise UsageError(f"the weight {self.weight:g} is no share", fix="Take one from 0 to 1.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"the temperature {self.temperature:g} is not above 0", fix="Take 1, or one near it.")

    @abstractmethod
    def parts(self, question: str, hits: Sequence[Hit], answer: str) -> Parts | None:
        """What both halves say of an answer and the token that ends it, whatever the weight.

        Args:
            question: Not empty.
            hits: Best first, as for `read`.
            answer: Any text.

        Returns:
            None where a half's context has no room for the answer.
        """


@dataclass(frozen=True, kw_only=True)
class WeightPoint:
    """Attributes: weight, temperature: Tried. nll: Nats a token; infinite where a token is ruled out."""

    weight: float
    temperature: float
    nll: float


@dataclass(frozen=True, kw_only=True)
class WeightChoice:
    """A weight and what it was chosen from.

    Attributes:
        weight: Of the least nats a token; where several do equally well, 0 before 1 before any between.
        temperature: With it; at weight 0 it decides nothing.
        nll: Nats a token of the gold answers at that weight.
        curve: Every weight that was tried, by temperature; weight 0 once.
        questions: Whose answers were read.
        tokens: Of the answers, each counting the same.
        left_out: Questions without an answer, or with one that there was no room for.
    """

    weight: float
    temperature: float
    nll: float
    curve: tuple[WeightPoint, ...]
    questions: int
    tokens: int
    left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON, which has no infinity: None stands for it."""
        values = asdict(self)
        for point in [values, *values["curve"]]:
            point["nll"] = point["nll"] if math.isfinite(point["nll"]) else None
        return values


def mixed(log_probs: Tensor, log_weights: Tensor) -> Tensor:
    """``log sum_n w_n p_n``: the logarithm of a mixture, not a mixture of logarithms.

    Args:
        log_probs: (parts, anything).
        log_weights: (parts,), of weights that sum to 1.

    Returns:
        (anything,).
    """
    shape = (-1, *(1 for _ in log_probs.shape[1:]))
    return torch.logsumexp(log_probs + log_weights.to(log_probs.device).view(shape), dim=0)


def log_weights(weight: float) -> Tensor:
    """Logarithms of both halves' weights, (2,), float64."""
    return torch.tensor([1 - weight, weight], dtype=torch.float64).log()


def choose_weight(
    parts: Sequence[Parts], *, weights: Sequence[float] = WEIGHTS, temperatures: Sequence[float] = (1.0,)
) -> WeightChoice:
    """The weight, and the temperature, under which gold answers are the least unlikely.

    Args:
        parts: What both halves say of each answer; at least one.
        weights: To try; 0 and 1 always are.
        temperatures: To try each with.
    """
    if not parts:
        raise DataError("there is no answer to choose a weight by", fix="Give questions with answers.")
    first = torch.cat([one.first for one in parts])
    curve = [WeightPoint(weight=0.0, temperature=temperatures[0], nll=-float(first.mean()))]
    for temperature in temperatures:
        both = torch.stack([first, torch.cat([one.second(temperature) for one in parts])])
        for weight in sorted({1.0, *weights} - {0.0}):
            nll = -float(mixed(both, log_weights(weight)).mean())
            curve.append(WeightPoint(weight=weight, temperature=temperature, nll=nll))
    least = min(point.nll for point in curve)
    best = min((point for point in curve if point.nll <= least + TIED), key=_simplest_first)
    return WeightChoice(**asdict(best), curve=tuple(curve), questions=len(parts), tokens=len(first))


def weigh(
    system: WeighedSystem,
    questions: Sequence[AskedQuestion],
    *,
    finder: Finder | None = None,
    weights: Sequence[float] = WEIGHTS,
    temperatures: Sequence[float] | None = None,
) -> WeightChoice:
    """Choose a system's weight by questions that are kept from its training and from its test.

    Args:
        system: Its own weight decides nothing.
        questions: At least one with an answer, of which the first is read.
        finder: Gives the passages; None for the system's own search.
        weights: See `choose_weight`.
        temperatures: See there; None for the system's own.

    Raises:
        DataError: No question has an answer that there is room for.
    """
    found = []
    with ProgressBar("weighing", len(questions)) as bar:
        for done, question in enumerate(questions, start=1):
            if question.answers:
                count = system.passages
                hits = finder(question, count) if finder else system.retrieve(question.question, count)
                found.append(system.parts(question.question, hits[:count], question.answers[0]))
            bar.update(done)
    read = [one for one in found if one is not None]
    tried = (system.temperature,) if temperatures is None else temperatures
    choice = choose_weight(read, weights=weights, temperatures=tried)
    return WeightChoice(**(vars(choice) | {"left_out": len(questions) - len(read)}))


def _simplest_first(point: WeightPoint) -> tuple[int, float]:
    return (int(point.weight) if point.weight in (0, 1) else 2), point.nll
