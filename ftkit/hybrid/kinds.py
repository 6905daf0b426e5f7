"""The kinds of hybrids: how each is trained and opened, and which of its files an export takes along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.hybrid.course import Course
from ftkit.hybrid.router import ROUTER, WEIGHTS, RouterSystem, load_router
from ftkit.hybrid.training import train_router
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder

# A kind may answer by a system of its own, or by one that is asked like any index.
HybridSystem = RouterSystem | RagSystem


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Attributes:
    train: Writes ``files`` into the run, and gives what stands in result.json.
    open: From a folder with ``files``, open members and the hybrid's encoder to what is asked.
    files: What training leaves, that an export copies as it is.
    """

    train: Callable[[Course], dict[str, Any]]
    open: Callable[[Path, Mapping[str, RagSystem], Encoder], HybridSystem]
    files: tuple[str, ...]


def _open_router(folder: Path, members: Mapping[str, RagSystem], encoder: Encoder) -> RouterSystem:
    return RouterSystem(members=members, router=load_router(folder), encoder=encoder)


KINDS: dict[str, Kind] = {"router": Kind(train=train_router, open=_open_router, files=(ROUTER, WEIGHTS))}
