"""A mixture, and a model with a memory: weighed on dev questions, kept in a run, opened again.

weight.json           the weight, its temperature, and which member is which half
memory/               of a memory: its datastore
answers/parts.jsonl   what both halves said of each right answer, as it was read
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, Problem, UsageError
from ftkit.files import write_json
from ftkit.hybrid.combining import memory_of, mixture_of, temperatures_for
from ftkit.hybrid.course import ANSWERS, Course
from ftkit.hybrid.datastore import Datastore, build_datastore, open_datastore
from ftkit.hybrid.kept import KeptParts, read_parts
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import text_digest
from ftkit.hybrid.weights import WEIGHTS, Parts, WeighedSystem, WeightChoice, WeightPoint, choose_weight
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder
from ftkit.rag.questions import AskedQuestion

WEIGHT, MEMORY, PARTS = "weight.json", "memory", "parts.jsonl"
FORMAT_VERSION = 1
HALVES = 2


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """weight.json.

    Attributes:
        first: The member that weight 0 leaves alone.
        second: The one that weight 1 does; None for a memory.
        weight: See `ftkit.hybrid.weights.WeighedSystem`, as for ``temperature``.
        temperature: Of the second half's own weights.
        neighbours: That count for a token; 0 without a memory.
        follows: Whether a memory's texts are its member's own documents.
    """

    first: str
    second: str | None
    weight: float
    temperature: float
    neighbours: int = 0
    follows: bool = False

    def write(self, folder: Path) -> None:
        """Into the hybrid's folder."""
        write_json(folder / WEIGHT, {"format_version": FORMAT_VERSION, **asdict(self)})


def read_weight(folder: Path, members: Mapping[str, RagSystem]) -> StoredWeight:
    """Read weight.json.

    Raises:
        DataError: It cannot be read, or is of other members.
    """
    try:
        values: dict[str, Any] = json.loads((folder / WEIGHT).read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another format")
        stored = StoredWeight(**values)
        if {stored.first, stored.second} - {None} != set(members):
            raise ValueError("it is of other members")
        numbers = (stored.weight, stored.temperature, stored.neighbours)
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            raise ValueError("its weight, temperature or neighbours is no number")
        if not isinstance(stored.follows, bool):
            raise ValueError("follows is neither true nor false")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / WEIGHT}: cannot be read: {error}", fix="Train it again.") from None
    return stored


def halves_of(members: Mapping[str, RagSystem]) -> tuple[str, str]:
    """Of a mixture's members the one without passages, and the one with.

    Raises:
        UsageError: There are not one of each.
    """
    without = [name for name, one in members.items() if not one.passages]
    reading = [name for name in members if name not in without]
    if len(without) != 1 or len(reading) != 1:
        what = "both are given passages" if reading else "neither is given passages"
        fix = "Give one of them retrieval: none." if reading else "Give one of them an index."
        raise UsageError(
            [Problem(where="members", what=f"a mixture is of one without and one with passages; {what}", fix=fix)]
        )
    return without[0], reading[0]


def mixture_system(members: Mapping[str, RagSystem]) -> MixtureSystem:
    """The members as a mixture whose weight is still to be chosen.

    Raises:
        FtkitError: They are not one without and one with passages, or cannot be mixed.
    """
    tuned, reader = halves_of(members)
    return mixture_of(members[tuned].generator, members[reader])


def train_mixture(course: Course) -> dict[str, Any]:
    """Choose weight and temperature, and write them.

    Returns:
        What stands in result.json.
    """
    first, second = halves_of(course.members)
    settings = course.recipe.mixture
    weighed = _weigh(course, mixture_system(course.members), course.train, settings.weights, settings.temperatures)
    choice = weighed["choice"]
    StoredWeight(first=first, second=second, weight=choice["weight"], temperature=choice["temperature"]).write(
        course.folder
    )
    return _facts((first, second), weighed)


def train_memory(course: Course) -> dict[str, Any]:
    """Build the memory where it is not there yet, choose weight and temperature, and write them.

    Returns:
        What stands in result.json.
    """
    ((name, system),) = course.members.items()
    remembered, settings = course.remembered, course.recipe.memory
    assert remembered is not None, "a memory remembers something"
    place = course.folder / MEMORY
    if place.is_dir():
        store = open_datastore(place)
    else:
        log.info("remembering %d texts and %d answers", len(remembered.texts), len(remembered.pairs))
        store = build_datastore(system.generator, remembered.contents, place, precision=settings.precision)
    log.info("%d tokens are remembered", store.entries)
    follows = settings.texts is None
    weighed = _weigh(
        course, memory_of(system, store, settings.neighbours, follows=follows), remembered.dev, None, None
    )
    choice = weighed["choice"]
    StoredWeight(
        first=name, second=None, weight=choice["weight"], temperature=choice["temperature"],
        neighbours=settings.neighbours, follows=follows,
    ).write(course.folder)  # fmt: skip
    memory = {"texts": len(remembered.texts), "answers": len(remembered.pairs), **memory_facts(store)}
    return _facts((name, "its memory"), weighed) | {"memory": memory}


def memory_facts(store: Datastore) -> dict[str, Any]:
    """Tokens that are remembered, and the room that they take."""
    size = sum((store.folder / shard.file).stat().st_size for shard in store.shards)
    return {"entries": store.entries, "bytes": size}


def open_mixture(folder: Path, members: Mapping[str, RagSystem], _: Encoder | None) -> MixtureSystem:
    """Members as what was trained in a folder."""
    stored = read_weight(folder, members)
    return replace(mixture_system(members), weight=stored.weight, temperature=stored.temperature)


def open_memory(folder: Path, members: Mapping[str, RagSystem], _: Encoder | None) -> NearestSystem:
    """The member with the memory that was trained in a folder."""
    stored = read_weight(folder, members)
    store = open_datastore(folder / MEMORY)
    system = memory_of(members[stored.first], store, stored.neighbours, follows=stored.follows)
    if stored.follows:
        _tell_what_changed(folder, system)
    return replace(system, weight=stored.weight, temperature=stored.temperature)


def _tell_what_changed(folder: Path, system: NearestSystem) -> None:
    gone = len(system.memory.forgotten)
    known = {text for source in system.datastore.sources for text in source.texts}
    new = len({text_digest(one.content) for one in system.index.all_passages()} - known)
    if gone or new:
        log.warning(
            "%s: %d remembered passages are not among its documents any more and count no more; %d new ones are not "
            "remembered. Train it again to remember them.", folder, gone, new,
        )  # fmt: skip


def _weigh(
    course: Course,
    system: WeighedSystem,
    dev: Sequence[AskedQuestion],
    weights: Sequence[float] | None,
    temperatures: Sequence[float] | None,
) -> dict[str, Any]:
    """Choice, and what both halves and the whole are worth on dev and on held-back questions."""
    tried = temperatures or temperatures_for(system)
    cache = course.folder / ANSWERS / PARTS
    read = read_parts(system, dev, temperatures=tried, cache=cache)
    choice = choose_weight(read, weights=WEIGHTS if weights is None else weights, temperatures=tried)
    choice = replace(choice, left_out=len(dev) - len(read))
    ends = _ends(choice)
    held = read_parts(system, course.held, temperatures=tried, cache=cache)
    return {
        "choice": json.loads(json.dumps(choice.to_dict())),  # as it will be read again
        "halves": [_json(one.nll) for one in ends],
        "validation": _held_back(held, choice, ends, len(course.held)) if held else None,
    }


def _ends(choice: WeightChoice) -> tuple[WeightPoint, WeightPoint]:
    """Each half alone; the second at the temperature that suits it best by itself."""
    first = next(point for point in choice.curve if point.weight == 0)
    return first, min((point for point in choice.curve if point.weight == 1), key=lambda point: point.nll)


def _held_back(
    read: Sequence[KeptParts], choice: WeightChoice, ends: tuple[WeightPoint, WeightPoint], asked: int
) -> dict[str, Any]:
    return {
        "questions": len(read),
        "left_out": asked - len(read),
        "tokens": sum(len(one.first) for one in read),
        "nll": _json(nats_at(read, choice.weight, choice.temperature)),
        "halves": [_json(nats_at(read, point.weight, point.temperature)) for point in ends],
    }


def nats_at(parts: Sequence[Parts], weight: float, temperature: float) -> float:
    """Nats a token of some answers at one weight; infinite where a token is ruled out."""
    curve = choose_weight(parts, weights=(weight,), temperatures=(temperature,)).curve
    return next(point.nll for point in curve if point.weight == weight)


def _facts(names: tuple[str, str], weighed: dict[str, Any]) -> dict[str, Any]:
    choice = weighed["choice"]
    because = verdict(names, choice, weighed["halves"])
    log.info("%s", because)
    return {
        "because": because,
        "halves": list(names),
        "weight": choice["weight"],
        "temperature": choice["temperature"],
        "dev": {"nll": choice["nll"], "halves": weighed["halves"]},
        **{key: weighed[key] for key in ("choice", "validation")},
    }


def verdict(names: tuple[str, str], choice: Mapping[str, Any], halves: Sequence[float | None]) -> str:
    """What was chosen and why, in a sentence."""
    first, second = (
        f"{name} alone {'rules out a token' if nll is None else f'{nll:.3f}'}"
        for name, nll in zip(names, halves, strict=True)
    )
    weight = choice["weight"]
    if weight in (0, 1):
        return (
            f"{names[int(weight)]} answers everything: no weight between 0 and 1 makes the right answers of dev "
            f"questions likelier; nats a token: {first}, {second}"
        )
    return (
        f"{names[1]} counts with weight {weight:g} beside {names[0]}, at temperature {choice['temperature']:g}; nats "
        f"a token of the right answers of dev questions: {choice['nll']:.3f} together, {first}, {second}"
    )


def _json(nll: float) -> float | None:
    """JSON has no infinity: None stands for it."""
    return nll if math.isfinite(nll) else None
