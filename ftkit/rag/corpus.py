"""All documents of all sources, and all faults in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftkit.errors import DataError, Problem
from ftkit.notices import log
from ftkit.rag.document import Document
from ftkit.rag.loaders import LOADERS
from ftkit.rag.loaders.parser import PARSER
from ftkit.rag.sources import SourceFile, find_files

MOST_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents with ids of their own.

    Attributes:
        documents: In the order of the sources, within a folder of the file names, within a table of the rows.
        faults: What could not be read and is not among the documents.
        left_out: Files of folders that are of a kind that is not read, such as pictures.
    """

    documents: tuple[Document, ...]
    faults: tuple[Problem, ...] = ()
    left_out: tuple[Path, ...] = ()


def read_documents(sources: Sequence[str | Path], *, on_fault: Literal["error", "skip"] = "error") -> Corpus:
    """Read every document of some files and folders.

    A document's id is its file's path below the source that was named, in POSIX form (of a file named by itself, its
    file name), followed by ``#ROW`` for a row of a table. Hidden files are left out. So are files of folders that are
    of a kind that is not read, and a warning says which; named by itself, such a file is a fault. Of two documents
    with one id the first is kept.

    Args:
        sources: Files and folders.
        on_fault: ``error`` to raise all faults together, ``skip`` to keep the good documents and return the faults.

    Raises:
        DataError: Naming every fault with ``error``; with ``skip`` only if not one document could be read.
        MissingPartError: A format's library is not installed.
    """
    documents: dict[str, Document] = {}
    faults: list[Problem] = []
    left_out: list[Path] = []
    homes: dict[str, Path] = {}  # of each document's id, its file
    with contextlib.closing(PARSER):
        for found in _read(sources):
            if isinstance(found, Path):
                left_out.append(found)
                continue
            if isinstance(found, Problem):
                faults.append(found)
                continue
            path, document = found
            first = homes.setdefault(document.id, path)
            if document.id in documents:
                faults.append(_clash(document.id, first, path))
            else:
                documents[document.id] = document
    if not documents and not faults:
        faults += [_not_read(path) for path in left_out] or [
            Problem(what="no source is named, so there is nothing to read", fix="Name a file or a folder.")
        ]
    if faults and (on_fault == "error" or not documents):
        raise DataError(faults)
    if left_out:
        shown = ", ".join(map(str, left_out[:MOST_SHOWN])) + (", ..." if len(left_out) > MOST_SHOWN else "")
        log.warning("left out %d files of kinds that are not read: %s", len(left_out), shown)
    return Corpus(documents=tuple(documents.values()), faults=tuple(faults), left_out=tuple(left_out))


def _read(sources: Sequence[str | Path]) -> Iterator[tuple[Path, Document] | Problem | Path]:
    names: dict[str, Path] = {}
    for file in find_files(sources):
        if isinstance(file, Problem):
            yield file
        elif (first := names.setdefault(file.name, file.path)) is not file.path:
            # Here and not row by row, where a table would give as many faults as it has rows.
            yield _clash(file.name, first, file.path)
        else:
            yield from _load(file)


def _load(file: SourceFile) -> Iterator[tuple[Path, Document] | Problem | Path]:
    load = LOADERS.get(file.path.suffix.lower())
    if load is None:
        yield _not_read(file.path) if file.by_itself else file.path
        return
    empty = True
    for found in load(file.path, file.name):
        empty = False
        if isinstance(found, Problem):
            yield found
        elif not found.text.strip():
            yield Problem(where=str(file.path), what="holds no text", fix="Fill it in, or leave it out.")
        else:
            yield file.path, found
    if empty:
        yield Problem(where=str(file.path), what="holds no rows", fix="Fill it in, or leave it out.")


def _not_read(path: Path) -> Problem:
    what = f"is of a kind that is not read ({path.suffix})"
    read = ", ".join(suffix for suffix in LOADERS if suffix)
    return Problem(where=str(path), what=what, fix=f"Leave it out, or convert it. Read are {read}.")


def _clash(name: str, first: Path, second: Path) -> Problem:
    if first == second:
        return Problem(where=str(second), what="is named twice", fix="Name it once.")
    what = f"would have the id {name!r}, and so has {first}"
    return Problem(where=str(second), what=what, fix="Rename one of them, or name a folder above both as the source.")
