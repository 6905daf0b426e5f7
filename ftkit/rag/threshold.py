"""When to abstain: confidence against correctness on dev data, and the threshold that follows from it.

A system's confidence in an answer is the mean log-probability that its generator gave to the answer's tokens, the
stop token among them, as it generated them: 0 is certain. It ranks answers; it is no probability that they are right.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from ftkit.errors import DataError
from ftkit.files import sha256_file, write_json
from ftkit.methods.method import FIRST
from ftkit.pipeline.gguf_model import GgufModel
from ftkit.pipeline.target import Target

ANSWERING = "answering.json"
FORMAT_VERSION = 1
SAMPLED = 1024  # values of each weight matrix that tell two generators apart


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What a system does that answers at this confidence and above.

    Attributes:
        threshold: The confidence.
        coverage: Share of all questions that it answers.
        risk: Share of those answers that are wrong.
    """

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A threshold and what it was chosen from.

    Attributes:
        threshold: The lowest with at most the risk asked for; None where there is none.
        curve: From the highest confidence to the lowest; one point for each confidence that occurs.
        area: Mean risk over the coverages that are reached (0 is best); None where nothing was answered.
    """

    threshold: float | None
    curve: tuple[CurvePoint, ...]
    area: float | None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How passages come to a generator: where this is another, the same confidence may mean another risk.

    Attributes:
        mode: How passages are searched for.
        passages: How many the generator is given.
        hops: Searches for each question.
        reranker_sha256: Of the model that orders the first hits anew; None without one.
        reranked: How many hits it orders; 0 without one.
    """

    mode: str
    passages: int
    hops: int = 1
    reranker_sha256: str | None = None
    reranked: int = 0

    def __str__(self) -> str:
        reranker = self.reranker_sha256
        reranking = "no reranker" if reranker is None else f"the first {self.reranked} by reranker {reranker[:12]}…"
        return f"--mode {self.mode} --passages {self.passages} --hops {self.hops}, {reranking}"


@dataclass(frozen=True, kw_only=True)
class StoredThreshold:
    """A threshold as an index keeps it.

    Attributes:
        threshold: Answers below it are not given.
        max_risk: That was asked for.
        coverage: On the dev data.
        risk: On the dev data.
        questions: Of the dev data.
        data_sha256: Of the dev data's file.
        generator: That it was chosen for; see `generator_sha256`.
        mode: See `Conditions`, as for the others.
        passages: How many the generator was given.
        hops: Searches for each question.
        reranker_sha256: Of the reranker.
        reranked: How many hits it ordered.
    """

    threshold: float
    max_risk: float
    coverage: float
    risk: float
    questions: int
    data_sha256: str
    generator: str
    mode: str
    passages: int
    hops: int = 1
    reranker_sha256: str | None = None
    reranked: int = 0

    @property
    def conditions(self) -> Conditions:
        """That it was chosen under."""
        return Conditions(**{one.name: getattr(self, one.name) for one in fields(Conditions)})


def risk_coverage(confidences: Sequence[float | None], correct: Sequence[bool]) -> tuple[CurvePoint, ...]:
    """Risk and coverage at every confidence that occurs, from the highest down.

    Answers of equal confidence are given or withheld together.

    Args:
        confidences: One a question; None where the system gives no answer whatever the threshold.
        correct: Whether the answer is right; ignored where there is none.
    """
    pairs = zip(confidences, correct, strict=True)
    answered = sorted(((one, right) for one, right in pairs if one is not None), key=lambda pair: -pair[0])
    points, given, wrong = [], 0, 0
    for confidence, group in groupby(answered, key=lambda pair: pair[0]):
        outcomes = [right for _, right in group]
        given, wrong = given + len(outcomes), wrong + outcomes.count(False)
        points.append(CurvePoint(threshold=confidence, coverage=given / len(confidences), risk=wrong / given))
    return tuple(points)


def choose_threshold(confidences: Sequence[float | None], correct: Sequence[bool], max_risk: float) -> Choice:
    """The lowest threshold whose risk is at most ``max_risk`` on these questions.

    The risk is the one of these questions, not a bound: on other questions it varies, the more the fewer these are.

    Args:
        confidences: One a question; None where the system gives no answer whatever the threshold.
        correct: Whether the answer is right.
        max_risk: Share of wrong answers among those given.

    Source:
        El-Yaniv and Wiener 2010 (selective prediction); Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    if not 0 <= max_risk <= 1:
        raise ValueError(f"max_risk is {max_risk}; it is a share, from 0 to 1")
    curve = risk_coverage(confidences, correct)
    good = [point.threshold for point in curve if point.risk <= max_risk]
    return Choice(threshold=min(good, default=None), curve=curve, area=area_under(curve))


def area_under(curve: Sequence[CurvePoint]) -> float | None:
    """Mean risk over the coverages that a curve reaches; None for an empty one."""
    if not curve:
        return None
    before = [0.0, *(point.coverage for point in curve)]
    steps = [(point.coverage - low) * point.risk for point, low in zip(curve, before, strict=False)]
    return math.fsum(steps) / curve[-1].coverage


def generator_sha256(target: Target) -> str:
    """What tells a generator from another: names, shapes and evenly spaced values of all its weights.

    Of large matrices a thousand values are taken: all of them would take longer than an answer, and training moves
    every value of the matrices that it trains.
    """
    digest = hashlib.sha256(json.dumps(target.stop_token_ids).encode())
    if isinstance(target.model, GgufModel):
        digest.update(sha256_file(target.model.path).encode())
    for name, weight in sorted(_own_weights(target).items()):
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        flat = weight.detach().flatten()
        sampled = flat[:: max(1, flat.numel() // SAMPLED)]
        digest.update(sampled.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _own_weights(target: Target) -> dict[str, Any]:
    """A target's weights by name; of several adapters on one model its own, under the names of an only one."""
    weights: dict[str, Any] = target.model.state_dict()
    if target.choose is None:
        return weights
    target.choose()
    model: Any = target.model
    own = str(model.active_adapter)
    others = set(model.peft_config) - {own}
    named = ((name.split("."), weight) for name, weight in weights.items())
    return {
        ".".join(FIRST if part == own else part for part in parts): weight
        for parts, weight in named
        if not others & set(parts)
    }


def write_threshold(folder: Path, stored: StoredThreshold) -> None:
    """Keep a threshold in an index's folder, in place of a former one."""
    write_json(folder / ANSWERING, {"format_version": FORMAT_VERSION, **asdict(stored)})


def read_threshold(folder: Path) -> StoredThreshold | None:
    """The threshold that an index keeps; None without one.

    Raises:
        DataError: It cannot be read.
    """
    path = folder / ANSWERING
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another format")
        stored = StoredThreshold(**values)
        if isinstance(stored.threshold, bool) or not isinstance(stored.threshold, (int, float)):
            raise ValueError(f"the threshold {stored.threshold!r} is no number")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "Delete it, or choose a threshold again: ftkit rag eval DIR --data FILE --set-threshold RISK"
        raise DataError(f"{path}: cannot be read: {error}", fix=fix) from None
    return stored
