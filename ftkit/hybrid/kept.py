"""What both halves of a system say of each answer, kept on the disk as it comes, so that a kill costs little."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftkit.files import sha256_json
from ftkit.hybrid.weights import WeighedSystem
from ftkit.notices import log
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion
from ftkit.train.progress import ProgressBar


@dataclass(frozen=True, kw_only=True)
class KeptParts:
    """See `ftkit.hybrid.weights.Parts`.

    Attributes:
        first: By the first half, (tokens,), float64.
        seconds: By the second half at each temperature, the same.
    """

    first: Tensor
    seconds: Mapping[float, Tensor]

    def second(self, temperature: float) -> Tensor:
        """At one of the temperatures that it was read with."""
        return self.seconds[temperature]


def read_parts(
    system: WeighedSystem, questions: Sequence[AskedQuestion], *, temperatures: Sequence[float], cache: Path
) -> list[KeptParts]:
    """Read the first answer of each question by both halves; those without one, or without room, are left out.

    Args:
        system: Its own weight decides nothing.
        questions: Any.
        temperatures: At which the second half is read.
        cache: A file that each reading is kept in as it comes. Those that it holds are not read again.
    """
    known = _read(cache)
    found: list[KeptParts | None] = []
    with ProgressBar("weighing", len(questions)) as bar:
        for done, question in enumerate(questions, start=1):
            if question.answers:
                hits = system.retrieve(question.question, system.passages)
                key = _key(system, question, hits, temperatures)
                if key not in known:
                    known[key] = _reading(system, question, hits, temperatures)
                    _append(cache, key, known[key])
                found.append(known[key])
            bar.update(done)
    return [one for one in found if one is not None]


def _reading(
    system: WeighedSystem, question: AskedQuestion, hits: Sequence[Hit], temperatures: Sequence[float]
) -> KeptParts | None:
    parts = system.parts(question.question, hits, question.answers[0])
    if parts is None:
        return None
    return KeptParts(first=parts.first, seconds={one: parts.second(one) for one in temperatures})


def _key(system: WeighedSystem, question: AskedQuestion, hits: Sequence[Hit], temperatures: Sequence[float]) -> str:
    given = [[hit.passage.content, hit.score] for hit in hits]
    return sha256_json([system.identity, question.question, question.answers[0], given, list(temperatures)])


def _append(cache: Path, key: str, parts: KeptParts | None) -> None:
    row: dict[str, Any] = {"key": key, "first": None, "seconds": None}
    if parts is not None:
        seconds = [[temperature, _numbers(one)] for temperature, one in parts.seconds.items()]
        row |= {"first": _numbers(parts.first), "seconds": seconds}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row, allow_nan=False) + "\n")


def _read(cache: Path) -> dict[str, KeptParts | None]:
    """What a cache holds; a line that was cut off when its process died is none."""
    found: dict[str, KeptParts | None] = {}
    text = cache.read_text(encoding="utf-8", errors="replace") if cache.is_file() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            found[str(row["key"])] = None if row["first"] is None else _parts(row)
        except (ValueError, KeyError, TypeError):
            log.info("%s: a line that cannot be read is left out", cache)
    if text and not text.endswith("\n"):
        with cache.open("a", encoding="utf-8") as stream:
            stream.write("\n")  # what is written next must not join the line that was cut off
    return found


def _parts(row: Mapping[str, Any]) -> KeptParts:
    seconds = {float(temperature): _tensor(values) for temperature, values in row["seconds"]}
    return KeptParts(first=_tensor(row["first"]), seconds=seconds)


def _numbers(log_probs: Tensor) -> list[float | None]:
    """JSON has no infinity: None stands for a token that is ruled out."""
    return [one if math.isfinite(one) else None for one in log_probs.tolist()]


def _tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([-math.inf if one is None else one for one in values], dtype=torch.float64)
