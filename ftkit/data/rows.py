"""What splitting, searching and mixing know of every row: a few numbers, never its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["train", "validation", "evaluation", "replay"]
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of all sources in file order, one entry a row in every array.

    Attributes:
        source: Which source a row came from.
        digest: (rows, 2): the first 16 bytes of SHA-256 of its content, read as two big-endian numbers.
        group: What stays together in the split; ``digest[:, 0]`` where nothing is grouped.
        longest: Tokens of its longest sequence.
        tokens: Tokens of all its sequences.
        supervised: Of these, tokens that count towards the loss.
    """

    source: NDArray[np.int16]
    digest: Words
    group: Words
    longest: NDArray[np.int32]
    tokens: NDArray[np.int64]
    supervised: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)


def mix64(values: Words) -> Words:
    """Spread every bit of each number over all of its bits, one to one.

    Source:
        The finaliser of SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def content_ids(digest: Words) -> Indices:
    """For each row the first row with the same content, which may be itself.

    Args:
        digest: (rows, 2), as in `Rows`.
    """
    order = np.lexsort((digest[:, 1], digest[:, 0]))  # stable: equal rows stay in file order
    ranked = digest[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[is_first][np.cumsum(is_first) - 1]
    return first
