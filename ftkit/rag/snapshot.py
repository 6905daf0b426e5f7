"""A copy of an index as it is searched now, made while others may write to it."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftkit.rag import store
from ftkit.rag.exported import PartNames
from ftkit.rag.index import VECTORS, Index
from ftkit.rag.schema import DATABASE, damage_named, open_database, transaction
from ftkit.rag.settings import write_settings
from ftkit.rag.vectors import VectorFile


def copy_index(index: Index, folder: Path, names: PartNames) -> int:
    """Write the searched version of an index into a new folder.

    Former versions stay behind: what was removed from an index is not to leave the house with its export. Ids,
    offsets and the version's number stay as they are, so the copy finds and cites the same.

    Args:
        index: Open; may be written to meanwhile.
        folder: Where to.
        names: What the copy calls encoders and generator.

    Returns:
        The version.

    Raises:
        DataError: The index is damaged.
    """
    folder.mkdir(parents=True)
    settings = replace(
        index.settings, encoder=names.encoder, query_encoder=names.query_encoder, generator=names.generator
    )
    write_settings(folder, settings)
    with (
        damage_named(index.folder),
        contextlib.closing(open_database(index.folder, read_only=index.read_only)) as source,
        contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as copy,
    ):
        # One state from beginning to end. Rows of vectors that it counts are never written again.
        source.backup(copy)
        version = store.head(copy)
        with transaction(copy):
            _forget_former_versions(copy, version)
            rows = _renumber_vectors(copy)
        matrix = VectorFile(index.folder / VECTORS, settings.width).rows(max(rows, default=-1) + 1)
        vectors = np.ascontiguousarray(matrix[rows], dtype=np.float32).reshape(-1, settings.width)
        VectorFile(folder / VECTORS, settings.width).append(0, vectors)
        # Words of removed passages leave the lexical index only when it is merged, and freed pages when it is packed.
        copy.execute("insert into lexical(lexical) values ('optimize')")
        copy.execute("vacuum")
    return version


def _forget_former_versions(copy: sqlite3.Connection, version: int) -> None:
    copy.execute("delete from change")
    copy.execute("insert into change select ?, document, revision from live", (version,))
    copy.execute("delete from version where number <> ?", (version,))
    copy.execute("update version set parent = null")
    copy.execute("delete from passage where revision not in (select revision from live)")
    copy.execute("delete from revision where id not in (select revision from live)")


def _renumber_vectors(copy: sqlite3.Connection) -> list[int]:
    """Keep the vectors that passages have, in their order.

    Returns:
        The former row of each.
    """
    copy.execute("delete from vector where row not in (select vector from passage)")
    rows = [int(row) for (row,) in copy.execute("select row from vector order by row")]
    moved = [(new, old) for new, old in enumerate(rows) if new != old]
    # Each moves down to a row that is free by then.
    copy.executemany("update vector set row = ? where row = ?", moved)
    copy.executemany("update passage set vector = ? where vector = ?", moved)
    return rows
