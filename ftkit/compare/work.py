"""What training a system cost, read from what its run wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.rag.run import is_rag_run


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training took.

    Attributes:
        flops: Floating-point operations; None where a run cannot tell.
        seconds: In training loops.
        steps: Of the generator.
        parameters: Of the generator, that learnt.
        peak_memory_bytes: Of the process; it holds what earlier systems of the same process left behind too.
        shipped_bytes: Of the files that answering needs beside base model, base encoder and index.
    """

    flops: float | None
    seconds: float
    steps: int
    parameters: int
    peak_memory_bytes: int
    shipped_bytes: int


NOTHING = Cost(flops=0.0, seconds=0.0, steps=0, parameters=0, peak_memory_bytes=0, shipped_bytes=0)


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Of several trainings; of memory the most."""
    flops = [one.flops for one in costs]
    return Cost(
        flops=None if None in flops else sum(one for one in flops if one is not None),
        seconds=sum(one.seconds for one in costs),
        steps=sum(one.steps for one in costs),
        parameters=sum(one.parameters for one in costs),
        peak_memory_bytes=max(one.peak_memory_bytes for one in costs),
        shipped_bytes=sum(one.shipped_bytes for one in costs),
    )


def read_cost(folder: Path) -> Cost:
    """Of a finished run, of one model or of a RAG system."""
    result = _json(folder / "result.json")
    if not is_rag_run(folder):
        return Cost(
            flops=result["flops"],
            seconds=result["wall_s"],
            steps=result["steps"],
            parameters=result["trainable_parameters"],
            peak_memory_bytes=result["peak_memory_bytes"],
            shipped_bytes=_bytes(folder / "export"),
        )
    stages = result["stages"]
    joint = stages.get("joint", [])
    parts = [*(stages[name] for name in ("reader", "retriever") if name in stages), *joint]
    flops = [part.get(key) for part in parts for key in ("flops", "judging_flops") if key in part]
    reader = _json(folder / "reader" / "result.json") if "reader" in stages else {}
    generator = folder / ("generator" if joint else "reader/export")
    return Cost(
        flops=None if None in flops else sum(one for one in flops if one is not None),
        seconds=sum(part["wall_s"] for part in parts),
        steps=sum(part["steps"] for part in parts if part.get("folder") != "retriever"),
        parameters=reader.get("trainable_parameters", 0),
        peak_memory_bytes=max(part.get("peak_memory_bytes", 0) for part in (*parts, reader)),
        shipped_bytes=_bytes(generator) + sum(_bytes(one) for one in _encoders(folder)),
    )


def retriever_flops(folder: Path) -> float | None:
    """Of the stage that distils the reader into the retriever; None where there was none."""
    stage = _json(folder / "result.json")["stages"].get("retriever")
    return None if stage is None or stage["flops"] is None else stage["flops"] + stage["judging_flops"]


def _encoders(folder: Path) -> list[Path]:
    """Those that the run's index names, if they are its own."""
    index = _json(folder / "index" / "index.json")
    named = {index["encoder"], index["query_encoder"]} - {None}
    own = [(folder / "index" / name).resolve() for name in named]
    return [place for place in own if place.is_dir() and place.is_relative_to(folder.resolve())]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
