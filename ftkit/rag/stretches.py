"""The stretches of a RAG run as they stand in its folder, read without trusting that any of it is there or whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.report.numbers import number, pick_number
from ftkit.report.read import Point, RunFiles, read_metrics

READING = "The generator learns to answer from passages: the right one among wrong ones, and sometimes without it."
JUDGED = "The reader stands still; the encoders learn which passages made the right answer likely."
WEIGHED = "The encoders stand still; the generator learns from each passage as much as the answer owes to it."
TOGETHER = "Generator and encoders learn by one gradient."
# What the loss of a stretch is: those of different stretches do not compare.
OF_READING = "nats a token of the answer"
OF_RETRIEVER = "nats a question: divergence from what the reader finds useful"
OF_JOINT = "nats a question: −log likelihood of the answer over its passages, and the weighted divergence"
OF_WEIGHED = "nats a question: −log likelihood of the answer, weighted over its passages"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One piece of training.

    Attributes:
        name: Its folder below the run.
        learns: What learns, and how.
        unit: What its loss is.
        training: Losses of the logged steps.
        validation: Losses on held-back questions; the first is of step 0 where it was measured.
        result: Its result.json; empty where it has not finished.
    """

    name: str
    learns: str
    unit: str
    training: list[Point]
    validation: list[Point]
    result: dict[str, Any]

    @property
    def held_back(self) -> tuple[float | None, float | None]:
        """Loss on held-back questions before and after; None where it was not measured."""
        before = self.validation[0][1] if self.validation and self.validation[0][0] == 0 else None
        after = self.validation[-1][1] if self.validation and self.validation[-1][0] > 0 else None
        return before, after


def read_stretches(run: Path) -> list[Stretch]:
    """Of a run, in the order in which they ran; those that have not begun are left out."""
    found = [_reader(run / "reader"), _stretch(run, "retriever", JUDGED, OF_RETRIEVER)]
    rounds = sorted((run / "joint").glob("round-*"), key=_round_number)
    for place in rounds:
        name = f"joint/{place.name}"
        found += [
            _stretch(run, name, TOGETHER, OF_JOINT),
            _stretch(run, f"{name}/retriever", JUDGED, OF_JOINT),
            _stretch(run, f"{name}/reader", WEIGHED, OF_WEIGHED),
        ]
    return [stretch for stretch in found if stretch is not None]


def _round_number(folder: Path) -> tuple[float, str]:
    digits = folder.name.rpartition("-")[2]
    return (float(digits) if digits.isdecimal() else 0.0), folder.name


def _reader(folder: Path) -> Stretch | None:
    return _read(folder, "reader", READING, OF_READING)


def _stretch(run: Path, name: str, learns: str, unit: str) -> Stretch | None:
    return _read(run / name, name, learns, unit)


def _read(folder: Path, name: str, learns: str, unit: str) -> Stretch | None:
    if not (folder / "metrics.jsonl").is_file():
        return None
    lines = RunFiles(
        recipe_text="", recipe={}, metrics=read_metrics(folder, []), data=None, result=None, samples=None
    )
    result = _result(folder / "result.json")
    validation = lines.series("validation_loss")
    # Stretches on passages measure the first in their result alone.
    before = pick_number(result, "validation_loss_before")
    if before is not None and not any(step == 0 for step, _ in validation):
        validation = [(0, before), *validation]
    return Stretch(
        name=name, learns=learns, unit=unit, training=lines.series("loss"), validation=validation, result=result
    )


def _result(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def seconds_of(stretch: Stretch) -> float | None:
    """In the training loop; None where it has not finished."""
    return number(stretch.result.get("wall_s"))
