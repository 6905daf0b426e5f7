"""Rows and token sequences for the tests of splitting, searching and mixing."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence

import numpy as np

from ftkit.data.ngrams import Sequences
from ftkit.data.rows import Rows


def digests(contents: Sequence[str]) -> np.ndarray:
    """(rows, 2): the first sixteen bytes of SHA-256 as two big-endian numbers."""
    raw = b"".join(hashlib.sha256(content.encode()).digest()[:16] for content in contents)
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(-1, 2)


def make_rows(
    contents: Sequence[str],
    *,
    sources: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
) -> Rows:
    """One row a content: by default of source 0, ten tokens of which four count, and a group of its own."""
    longest = np.array([10] * len(contents) if lengths is None else lengths, np.int32)
    return Rows(
        source=np.array([0] * len(contents) if sources is None else sources, np.int16),
        digest=digests(contents),
        group=digests(contents if groups is None else groups)[:, 0].copy(),
        longest=longest,
        tokens=longest.astype(np.int64),
        supervised=np.full(len(contents), 4, np.int64),
    )


def make_sequences(rows: Sequence[Sequence[int]]) -> Sequences:
    lengths = [len(row) for row in rows]
    return Sequences(
        ids=np.array([token for row in rows for token in row], np.int32),
        offsets=np.concatenate([[0], np.cumsum(np.array(lengths, np.int64))]).astype(np.int64),
    )


@functools.cache
def near_tokens(name: str) -> list[int]:
    """Tokens of a row by its name: ``a`` and ``a'`` are near (45 of 55 n-grams), all other names are unlike."""
    row = random.Random(name.rstrip("'")).sample(range(1000, 50_000), 54)
    return [*row[:27], 7, *row[28:]] if name.endswith("'") else row
