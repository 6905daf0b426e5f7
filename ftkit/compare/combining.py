"""Systems of a comparison as one: a mixture of two, or a model with a memory, weighed on held-back questions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ftkit.compare.seat import Seat
from ftkit.files import sha256_json
from ftkit.hybrid.datastore import Datastore, build_datastore, open_datastore
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import Pair
from ftkit.hybrid.weights import WeighedSystem, WeightChoice, weigh
from ftkit.rag.answering import RagSystem
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.threshold import generator_sha256
from ftkit.recipe import CombinationSection

# Search scores differ in scale: fused ranks lie within 0.04, cosines within 1, BM25 goes beyond 10.
TEMPERATURES = (0.01, 0.05, 0.2, 1.0)
DISTANCES = (1.0, 10.0, 100.0, 1000.0)  # temperatures of squared distances between states
MEMORIES = "memories"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a model with a memory remembers beside the passages.

    Attributes:
        folder: Of the comparison; memories are kept in it.
        train: Questions, with the passages that the model is given with them.
    """

    folder: Path
    train: Sequence[AskedQuestion]


def combined_system(
    seats: Mapping[str, Seat], combined: CombinationSection, memory: Memory
) -> tuple[WeighedSystem, Seat]:
    """The systems as one, whose weight is still to be chosen, and the one whose passages it is given.

    Args:
        seats: By name.
        combined: Which, and how; no router.
        memory: For a model with one.
    """
    if combined.kind == "mixture":
        tuned, reader = (seats[name] for name in combined.of)
        return MixtureSystem(**_fields(reader.system), weight=0.5, tuned=tuned.system.generator), reader
    seat = seats[combined.of[0]]
    store = _remembered(seat, memory)
    neighbours = min(combined.neighbours, store.entries)
    return NearestSystem(**_fields(seat.system), weight=0.5, datastore=store, neighbours=neighbours), seat


def choose(system: WeighedSystem, seat: Seat, held: Sequence[AskedQuestion]) -> WeightChoice:
    """Weight and temperature by held-back questions."""
    if isinstance(system, NearestSystem):
        temperatures: tuple[float, ...] = DISTANCES
    else:
        temperatures = TEMPERATURES if system.passages > 1 else TEMPERATURES[-1:]  # one passage has all the weight
    return weigh(system, held, finder=seat.finder, temperatures=temperatures)


def _remembered(seat: Seat, memory: Memory) -> Datastore:
    target = seat.system.generator
    contents = sorted({one.content for one in seat.system.index.all_passages()})
    pairs = [
        Pair(
            question=one.question,
            answer=one.answers[0],
            passages=tuple(hit.passage.content for hit in seat.hits(one)) if seat.retrieves else (),
        )
        for one in memory.train
        if one.answers
    ]
    remembered = [generator_sha256(target), contents, [[one.question, one.answer, one.passages] for one in pairs]]
    place = memory.folder / MEMORIES / sha256_json(remembered)[:12]
    return open_datastore(place) if place.is_dir() else build_datastore(target, [*contents, *pairs], place)


def _fields(system: RagSystem) -> dict[str, Any]:
    return {one.name: getattr(system, one.name) for one in fields(RagSystem) if one.init}


def with_more_to_remember(system: NearestSystem, contents: Sequence[str], place: Path) -> NearestSystem:
    """The same with more passages in its memory, in a folder of its own."""
    shutil.copytree(system.datastore.folder, place)
    return replace(system, datastore=open_datastore(place).add(system.generator, contents))
