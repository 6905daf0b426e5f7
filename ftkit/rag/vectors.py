"""Vectors on disk: one append-only file of float32 rows, searched exactly.

Why no approximate engine: a matrix of a million rows of 384 numbers is read in a fraction of a second, wherever a
graph or an inverted file would have to be trained, would rank otherwise after edits than after a rebuild, and would
miss passages in silence. The figures stand in tests/benchmarks/RESULTS.md.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftkit.errors import DataError

Vectors = NDArray[np.float32]
QUERIES_AT_ONCE = 32
# Products of float32 differ in their last digits with the row that a vector stands in: all that are this near to the
# last one wanted (as a part of the largest) are scored once more, in float64.
NEAR = 1e-5
# Digits of a score that count. Two passages nearer to each other are equally good, and their names decide.
SCORE_DIGITS = 9


class VectorFile:
    """An append-only matrix on disk.

    Rows beyond what the database has committed are remains of a killed process, and the next writer writes over them.

    Args:
        path: May not exist yet.
        width: Numbers in a row.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self._map: Vectors | None = None

    def append(self, rows: int, vectors: Vectors) -> None:
        """Write behind the first ``rows`` rows, on the disk when this returns."""
        assert vectors.dtype == np.float32 and vectors.shape[1] == self.width, "the encoder's own"
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(handle, "r+b") as stream:
            stream.seek(rows * self.width * 4)
            stream.write(np.ascontiguousarray(vectors).tobytes())
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())

    def rows(self, count: int) -> Vectors:
        """The first ``count`` rows, mapped into memory.

        Raises:
            DataError: The file is shorter.
        """
        if self._map is None or len(self._map) < count:
            size = self.path.stat().st_size if self.path.is_file() else 0
            if size < count * self.width * 4:
                raise DataError(
                    f"{self.path}: holds {size} bytes and should hold {count * self.width * 4}",
                    fix="The file was cut off. Put back a copy of the index, or build it again from its sources.",
                )
            empty = np.zeros((0, self.width), dtype=np.float32)
            self._map = np.memmap(self.path, np.float32, "r", shape=(count, self.width)) if count else empty
        return self._map[:count]


def checksums(vectors: Vectors) -> list[int]:
    """CRC-32 of each row's bytes."""
    return [zlib.crc32(row.tobytes()) for row in np.ascontiguousarray(vectors)]


def nearest(
    queries: Vectors, matrix: Vectors, rows: NDArray[np.int64], count: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The best places for each query, by inner product, over every one of them.

    Args:
        queries: (queries, width).
        matrix: (all rows, width).
        rows: The row of each place; several places may share one.
        count: Places wanted for each query.

    Returns:
        For each query the places and their scores, best first. There are more than ``count`` where others are as
        good, or nearly, as the last: whoever breaks ties needs them.
    """
    found = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        block = queries[start : start + QUERIES_AT_ONCE]
        products = matrix @ block.T
        for column, query in enumerate(block):
            places = _leading(products[:, column][rows], count)
            exact = matrix[rows[places]].astype(np.float64) @ query.astype(np.float64)
            exact = np.round(exact, SCORE_DIGITS)
            order = np.argsort(-exact, kind="stable")
            found.append((places[order], exact[order]))
    return found


def _leading(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Where the best scores stand, and all that are as good as the last of them."""
    if count >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last - NEAR * np.abs(scores).max())
