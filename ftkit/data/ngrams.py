"""Token n-grams of many rows at once, without those that are mere boilerplate.

A system prompt or a chat template that most rows share would make all of them look alike. Therefore n-grams that
stand in many different rows (see `common_limit`) are left out of the search, and two rows have to be similar without
them as well as with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftkit.data.rows import Indices, Words, mix64

NGRAM = 5  # tokens
CHUNK_TOKENS = 1 << 16  # half a megabyte of hashes: what stays in a core's own cache
MAX_CHUNK_ROWS = 1 << 18  # row number and hash share 64 bits where they are sorted together
HASH_BITS = 44  # of these; two of 100,000 n-grams of a row are taken for one with a probability of 0.0003
MAX_TABLE_BITS = 24  # slots of the table that counts rows per n-gram; 64 MiB

_ID_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_PLACE_FACTOR = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """The token ids of all rows, one sequence a row.

    Attributes:
        ids: All rows one after the other; may be a memory map.
        offsets: Where each row begins, and the end of the last one: one entry more than there are rows.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def lengths(self, rows: Indices) -> Indices:
        """Tokens of each of ``rows``."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def gather(self, rows: Indices) -> tuple[Words, Indices]:
        """Ids of ``rows`` one after the other, and the tokens of each."""
        lengths = self.lengths(rows)
        shift = self.offsets[rows] - (np.cumsum(lengths) - lengths)
        places = np.arange(lengths.sum()) + np.repeat(shift, lengths)
        return self.ids[places].astype(np.uint64), lengths


def chunks(sizes: Indices, budget: int, most: int = MAX_CHUNK_ROWS) -> Iterator[slice]:
    """Cut a list into runs of about ``budget`` in sum and at most ``most`` entries; every run has at least one."""
    before = np.cumsum(sizes) - sizes
    start = 0
    while start < len(sizes):
        end = int(np.searchsorted(before, before[start] + budget))
        end = min(max(end, start + 1), start + most)
        yield slice(start, end)
        start = end


def common_limit(rows: int) -> int:
    """In how many different rows an n-gram may stand before it counts as boilerplate.

    A twentieth of them; of fewer than 200 rows ten, of fewer than 20 one half, but never fewer than the two that a
    pair of near-duplicates is. It follows that more than so many rows that are all nearly equal to each other are
    taken for rows with shared boilerplate: nothing in the tokens tells the two apart.
    """
    return max(2, min(10, rows // 2), rows // 20)


class NGrams:
    """Hashes of the n-grams that tell rows apart.

    Args:
        sequences: Of all rows.
        rows: The rows by which boilerplate is judged; rows with the same tokens count once.
        chunk_tokens: Tokens worked on at a time; changes speed and memory, not the result.
    """

    def __init__(self, sequences: Sequences, rows: Indices, *, chunk_tokens: int = CHUNK_TOKENS) -> None:
        self.sequences = sequences
        self.chunk_tokens = chunk_tokens
        self.fingerprints = self._fingerprint(rows)
        different = rows[np.unique(self.fingerprints, return_index=True)[1]]
        different.sort()  # in file order, which is the order of the memory map
        windows = int(np.maximum(sequences.lengths(different) - NGRAM + 1, 0).sum())
        # Sixty-four slots an n-gram while the table is small, so that two seldom meet: together they could pass
        # a limit that neither passes alone. Many meet in a full table, but there the limit is in the hundreds.
        bits = min(MAX_TABLE_BITS, max(12, (64 * windows).bit_length()))
        self._slots = np.uint64((1 << bits) - 1)
        counts = np.zeros(1 << bits, np.int32)
        for part in self._parts(different):
            keys = _unique_keys(*self._windows(part))
            np.add.at(counts, keys & self._slots, np.int32(1))
        self._is_common = counts > common_limit(len(different))

    def distinctive(self, rows: Indices) -> tuple[Words, Indices]:
        """Hashes of the n-grams of ``rows`` that are not boilerplate, row after row, and how many each row has."""
        hashes, counts = self._windows(rows)
        kept = ~self._is_common[(hashes >> np.uint64(64 - HASH_BITS)) & self._slots]
        kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        ends = np.cumsum(counts)
        return hashes[kept], kept_before[ends] - kept_before[ends - counts]

    def similarity(self, left: Indices, right: Indices) -> NDArray[np.float64]:
        """Jaccard similarity of the n-gram sets of each pair of rows: with boilerplate or without, whichever is less.

        Without it, so that a shared prompt makes no rows alike; with it, so that rows that differ in nothing but a
        yes or no between common words are not called equal. 0 where no n-grams are left.
        """
        result = np.zeros(len(left))
        for part in chunks(self.sequences.lengths(left) + self.sequences.lengths(right), self.chunk_tokens):
            pairs = part.stop - part.start
            keys = np.sort(np.concatenate([_unique_keys(*self._windows(side[part])) for side in (left, right)]))
            tells_apart = ~self._is_common[keys & self._slots]
            result[part] = np.minimum(_jaccard(keys, pairs), _jaccard(keys[tells_apart], pairs))
        return result

    def _parts(self, rows: Indices) -> Iterator[Indices]:
        for part in chunks(self.sequences.lengths(rows), self.chunk_tokens):
            yield rows[part]

    def _fingerprint(self, rows: Indices) -> Words:
        """One number for all tokens of a row in their order."""
        found = [np.zeros(0, np.uint64)]
        for part in self._parts(rows):
            ids, lengths = self.sequences.gather(part)
            ends = np.cumsum(lengths)
            places = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
            mixed = mix64((ids + np.uint64(1)) * _ID_FACTOR + places.astype(np.uint64) * _PLACE_FACTOR)
            # Differences of a running sum (modulo 2**64), which unlike reduceat knows rows without tokens.
            before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
            found.append(mix64(before[ends] - before[ends - lengths]))
        return np.concatenate(found)

    def _windows(self, rows: Indices) -> tuple[Words, Indices]:
        """Hashes of all n-grams of ``rows``, row after row, and how many each row has."""
        ids, lengths = self.sequences.gather(rows)
        counts = np.maximum(lengths - NGRAM + 1, 0)
        size = max(len(ids) - NGRAM + 1, 0)
        hashes = ids[:size].copy()
        for step in range(1, NGRAM):
            hashes *= _ID_FACTOR
            hashes += ids[step : step + size]
        # The last places of a row begin n-grams that would run into the next one. Where a row is shorter than that,
        # the places before it are already out: they are the last ones of the row before.
        crossing = (np.cumsum(lengths)[:, None] - np.arange(1, NGRAM)).ravel()
        inside = np.ones(size, bool)
        inside[crossing[(crossing >= 0) & (crossing < size)]] = False
        return mix64(hashes[inside]), counts


def _unique_keys(hashes: Words, counts: Indices) -> Words:
    """Row number (high bits) and hash of each different n-gram of each row, ascending."""
    rows = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = np.sort((rows << np.uint64(HASH_BITS)) | (hashes >> np.uint64(64 - HASH_BITS)))
    is_new = np.ones(len(keys), bool)
    is_new[1:] = keys[1:] != keys[:-1]
    return keys[is_new]


def _jaccard(keys: Words, pairs: int) -> NDArray[np.float64]:
    """Similarity of the two sets of each pair, from the sorted keys of both: those of shared n-grams stand twice."""
    pair = (keys >> np.uint64(HASH_BITS)).astype(np.int64)
    shared = np.bincount(pair[1:][keys[1:] == keys[:-1]], minlength=pairs)
    similarity: NDArray[np.float64] = shared / np.maximum(np.bincount(pair, minlength=pairs) - shared, 1)
    return similarity
