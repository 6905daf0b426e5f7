"""The kinds of hybrids: how each is trained and opened, and what of it an export takes along."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.hybrid.course import Course
from ftkit.hybrid.datastore import copy_datastore, open_datastore
from ftkit.hybrid.reading import require_probabilities
from ftkit.hybrid.router import ROUTER, WEIGHTS, RouterSystem, load_router
from ftkit.hybrid.training import train_router
from ftkit.hybrid.weighed import (
    MEMORY,
    WEIGHT,
    mixture_system,
    open_memory,
    open_mixture,
    train_memory,
    train_mixture,
)
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder

# A kind may answer by a system of its own, or by one that is asked like any index.
HybridSystem = RouterSystem | RagSystem
Digests = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Attributes:
    train: Writes into the run what ``open`` needs, and gives what stands in result.json.
    open: From a folder, open members and the hybrid's encoder to what is asked.
    copy: From a run into an export, what training left; digests are those of the export's members.
    require: Refuses open members that do not go together, before anything is asked.
    has_encoder: Whether the hybrid has one of its own, beside those of its members.
    reads_scores: Whether what was learnt holds for the scores of one search alone.
    """

    train: Callable[[Course], dict[str, Any]]
    open: Callable[[Path, Mapping[str, RagSystem], Encoder | None], HybridSystem]
    copy: Callable[[Path, Path, Digests], None]
    require: Callable[[Mapping[str, RagSystem]], object]
    has_encoder: bool = False
    reads_scores: bool = False


def _open_router(folder: Path, members: Mapping[str, RagSystem], encoder: Encoder | None) -> RouterSystem:
    assert encoder is not None, "a router has one"
    return RouterSystem(members=members, router=load_router(folder), encoder=encoder)


def _copy_router(place: Path, folder: Path, _: Digests) -> None:
    for file in (ROUTER, WEIGHTS):
        shutil.copyfile(place / file, folder / file)


def _copy_weight(place: Path, folder: Path, _: Digests) -> None:
    shutil.copyfile(place / WEIGHT, folder / WEIGHT)


def _copy_memory(place: Path, folder: Path, digests: Digests) -> None:
    _copy_weight(place, folder, digests)
    (own,) = digests.values()
    copy_datastore(open_datastore(place / MEMORY), folder / MEMORY, generator=own["generator_sha256"])


def _require_any(_: Mapping[str, RagSystem]) -> None:
    """A router sends questions to whatever answers."""


def _require_likelihoods(members: Mapping[str, RagSystem]) -> None:
    for one in members.values():
        require_probabilities(one.generator)


KINDS: dict[str, Kind] = {
    "router": Kind(train=train_router, open=_open_router, copy=_copy_router, require=_require_any, has_encoder=True),
    "mixture": Kind(
        train=train_mixture, open=open_mixture, copy=_copy_weight, require=mixture_system, reads_scores=True
    ),
    "memory": Kind(train=train_memory, open=open_memory, copy=_copy_memory, require=_require_likelihoods),
}
