"""Systems of a comparison as one: a mixture of two, or a model with a memory, weighed on held-back questions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.compare.seat import Seat
from ftkit.files import sha256_json
from ftkit.hybrid.combining import memory_of, mixture_of, pairs_of, temperatures_for
from ftkit.hybrid.datastore import Datastore, build_datastore, open_datastore
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import source_of
from ftkit.hybrid.weights import WeighedSystem, WeightChoice, weigh
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.threshold import generator_sha256
from ftkit.recipe import CombinationSection

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
        return mixture_of(tuned.system.generator, reader.system), reader
    seat = seats[combined.of[0]]
    return memory_of(seat.system, _remembered(seat, memory), combined.neighbours, follows=True), seat


def choose(system: WeighedSystem, seat: Seat, held: Sequence[AskedQuestion]) -> WeightChoice:
    """Weight and temperature by held-back questions."""
    return weigh(system, held, finder=seat.finder, temperatures=temperatures_for(system))


def _remembered(seat: Seat, memory: Memory) -> Datastore:
    target = seat.system.generator
    contents = sorted({one.content for one in seat.system.index.all_passages()})
    pairs = pairs_of(memory.train, seat.hits if seat.retrieves else None)
    remembered = [generator_sha256(target), contents, [[one.question, one.answer, one.passages] for one in pairs]]
    place = memory.folder / MEMORIES / sha256_json(remembered)[:12]
    return open_datastore(place) if place.is_dir() else build_datastore(target, [*contents, *pairs], place)


def with_new_memory(
    system: NearestSystem, contents: Sequence[str], stale: Sequence[AskedQuestion], place: Path
) -> NearestSystem:
    """The same with more passages in its memory, in a folder of its own.

    Args:
        system: Before. It forgets by itself which passages its index holds no more.
        contents: Of the new passages; may be empty.
        stale: Questions whose answers, where they are remembered, are right no more.
        place: A new folder.
    """
    shutil.copytree(system.datastore.folder, place)
    store = open_datastore(place)
    if contents:
        store = store.add(system.generator, contents)
    wrong = {source_of(one).sha256 for one in pairs_of(stale, None)}
    return replace(system, datastore=store.without(wrong))
