"""Nearly equal rows: MinHash finds candidates, their n-gram sets are then compared exactly.

A row is the set of its token 5-grams. Two rows are near-duplicates when the Jaccard similarity of their sets, shared
n-grams over all n-grams, is at least 0.8, and still is when boilerplate is left out (see `ftkit.data.ngrams`). A
row's signature is 64 numbers: the least hash of its set, without boilerplate, under each of 64 hash functions. Two
rows whose sets have the similarity ``s`` agree in each with probability ``s``. Rows that agree in four consecutive
numbers (a band, of 16) become candidates: ``1 - (1 - s**4)**16`` of the pairs, which is 0.9998 for ``s = 0.8``, 0.64
for 0.5 and 0.002 for 0.1. Of these, only pairs that agree in more than 0.6 of all 64 numbers are compared exactly, as
0.9999 of the pairs with ``s = 0.8`` do. The similarity that is reported is the exact one, so no pair is reported by
mistake.

What bounds the work: in each band a row meets the first eight different rows that share it, and of all that it meets
it is compared with the first and the three that agree best. So a row in a crowd of similar rows may be missed if it
is near to few of them. Work and memory grow in proportion to the rows, whatever they contain.

Rows with fewer than nine n-grams besides boilerplate are compared for equal tokens only. From nine on, a replaced
last token leaves a similarity of 0.8; below, one replaced token already is too much.

Source:
    Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman and Ullman, "Mining of Massive
    Datasets", chapter 3; linear hash functions: Bohman, Cooper and Frieze 2000, "Min-wise independent linear
    permutations".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftkit.data.ngrams import CHUNK_TOKENS, NGrams, Sequences, chunks
from ftkit.data.rows import Indices, Mask, Words, mix64

THRESHOLD = 0.8
MIN_NGRAMS = 9
BANDS, BAND_SIZE = 16, 4
HASHES = BANDS * BAND_SIZE
MIN_AGREEING = 39  # of 64: the first above 0.6
MAX_MET = 8  # rows of one band
MAX_COMPARED = 4  # rows of all bands
ROWS_AT_A_TIME = 1 << 16  # at most 64 MiB of candidates
PAIRS_AT_A_TIME = 1 << 14  # 8 MiB of signatures

_Found = tuple[Indices, Indices, NDArray[np.float64]]
_NOTHING: _Found = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class NearPairs:
    """Rows that have a near-equal other row, ascending, each once.

    Attributes:
        row: The row.
        other: The first row in file order that it is near to, of those it was compared with.
        similarity: Of the two, from 0.8 to 1; see `NGrams.similarity`.
    """

    row: Indices
    other: Indices
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.row)


class NearSearch:
    """Signatures of some rows, to be asked which are near to which.

    Args:
        sequences: Of all rows.
        rows: Those that will be asked about, ascending. What is boilerplate is judged by them.
        seed: Of the hash functions.
        chunk_tokens: Tokens worked on at a time; changes speed and memory, not the result.
    """

    def __init__(
        self, sequences: Sequences, rows: Indices, *, seed: int = 0, chunk_tokens: int = CHUNK_TOKENS
    ) -> None:
        self._rows = rows
        self._ngrams = NGrams(sequences, rows, chunk_tokens=chunk_tokens)
        self._signatures = np.zeros((len(rows), HASHES), np.uint32)
        self._is_long_enough = np.zeros(len(rows), bool)
        # The high half is well mixed; an odd factor makes the hash function a permutation of all 32-bit numbers.
        stream = mix64(
            (np.arange(HASHES, dtype=np.uint64) + np.uint64(1)) * _GOLDEN + mix64(np.array([seed], np.uint64))
        )
        self._factors = (stream >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
        for part in chunks(sequences.lengths(rows), chunk_tokens):
            self._sign(part)

    def within(self, rows: Indices) -> NearPairs:
        """Those of ``rows`` that are near to an earlier one of them."""
        at = self._positions(rows)
        return self._join(at, at, only_earlier=True)

    def across(self, rows: Indices, others: Indices) -> NearPairs:
        """Those of ``rows`` that are near to one of ``others``, wherever it stands."""
        return self._join(self._positions(rows), self._positions(others), only_earlier=False)

    def _positions(self, rows: Indices) -> Indices:
        return np.searchsorted(self._rows, rows).astype(np.int64)

    def _sign(self, part: slice) -> None:
        hashes, counts = self._ngrams.distinctive(self._rows[part])
        self._is_long_enough[part] = counts >= MIN_NGRAMS
        filled = np.flatnonzero(counts)
        if not len(filled):
            return
        starts = (np.cumsum(counts) - counts)[filled]
        halves = (hashes.astype(np.uint32), (hashes >> np.uint64(32)).astype(np.uint32))
        scratch = np.empty(len(hashes), np.uint32)
        least = np.empty((HASHES, len(filled)), np.uint32)
        for index, factor in enumerate(self._factors):
            np.multiply(halves[index % 2], factor, out=scratch)
            np.minimum.reduceat(scratch, starts, out=least[index])
        self._signatures[part.start + filled] = least.T

    def _join(self, asked: Indices, others: Indices, *, only_earlier: bool) -> NearPairs:
        """For each asked position its first near-equal other position, both as rows."""
        # Copies would fill a band's crowd: the first of them stands for all.
        others = np.sort(others)
        others = np.sort(others[np.unique(self._ngrams.fingerprints[others], return_index=True)[1]])
        long_enough = others[self._is_long_enough[others]]
        crowds = [_Crowd(self._ngrams.fingerprints[others], others)]
        crowds += [_Crowd(self._band(long_enough, band), long_enough) for band in range(BANDS)]
        found = [_NOTHING]
        for start in range(0, len(asked), ROWS_AT_A_TIME):
            codes = self._candidates(asked[start : start + ROWS_AT_A_TIME], crowds, only_earlier=only_earlier)
            found += self._compare(*_decoded(self._promising(codes)))
        rows, partners, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(rows)
        return NearPairs(row=self._rows[rows[order]], other=self._rows[partners[order]], similarity=similarity[order])

    def _candidates(self, asked: Indices, crowds: list[_Crowd], *, only_earlier: bool) -> Words:
        """Pairs that share tokens or a band, ascending."""
        met = [crowds[0].meet(self._ngrams.fingerprints[asked], asked, most=1)]
        asked = asked[self._is_long_enough[asked]]
        met += [crowds[band + 1].meet(self._band(asked, band), asked, most=MAX_MET) for band in range(BANDS)]
        row, other = (np.concatenate(column) for column in zip(*met, strict=True))
        if only_earlier:
            row, other = row[other < row], other[other < row]
        codes = np.sort(_encoded(row, other))  # many times faster than np.unique, which hashes
        return codes[_begins(codes)]

    def _promising(self, codes: Words) -> Words:
        """Of each row's candidates the first and those whose signatures agree best, ascending."""
        row, other = _decoded(codes)
        agreeing = np.zeros(len(codes), np.int8)
        for start in range(0, len(codes), PAIRS_AT_A_TIME):
            part = slice(start, start + PAIRS_AT_A_TIME)
            agreeing[part] = (self._signatures[row[part]] == self._signatures[other[part]]).sum(axis=1, dtype=np.int8)
        # Short rows have no signatures: whatever they meet has the same tokens.
        likely = (agreeing >= MIN_AGREEING) | ~self._is_long_enough[row]
        codes, row, agreeing = codes[likely], row[likely], agreeing[likely]
        is_first = _begins(row)
        order = np.lexsort((-agreeing, ~is_first, row))
        starts = np.flatnonzero(is_first)
        rank = np.arange(len(row)) - np.repeat(starts, np.diff(starts, append=len(row)))
        return np.sort(codes[order[rank < MAX_COMPARED]])

    def _compare(self, row: Indices, other: Indices) -> list[_Found]:
        """Each row's first candidate that is near to it, and how near.

        One round compares every row with the first candidate that it has left. Nearly all that have a near-equal row
        find it in the first round, so that crowds of copies cost one comparison a row.
        """
        found: list[_Found] = []
        while len(row):
            is_first = _begins(row)
            firsts, compared = row[is_first], other[is_first]
            similarity = self._similarity(firsts, compared)
            is_near = similarity >= THRESHOLD
            found.append((firsts[is_near], compared[is_near], similarity[is_near]))
            left = ~is_first & ~np.repeat(is_near, np.diff(np.flatnonzero(is_first), append=len(row)))
            row, other = row[left], other[left]
        return found

    def _similarity(self, left: Indices, right: Indices) -> NDArray[np.float64]:
        prints = self._ngrams.fingerprints
        result: NDArray[np.float64] = np.equal(prints[left], prints[right]).astype(np.float64)
        differ = np.flatnonzero(result == 0)
        result[differ] = self._ngrams.similarity(self._rows[left[differ]], self._rows[right[differ]])
        return result

    def _band(self, positions: Indices, band: int) -> Words:
        """One number for the four of a band."""
        keys = np.zeros(len(positions), np.uint64)
        for column in range(band * BAND_SIZE, (band + 1) * BAND_SIZE):
            keys = mix64(keys + _GOLDEN + self._signatures[positions, column])
        return keys


class _Crowd:
    """Positions by their key."""

    def __init__(self, keys: Words, members: Indices) -> None:
        order = np.argsort(keys, kind="stable")  # members with one key stay ascending
        self._keys, self._members = keys[order], members[order]

    def meet(self, keys: Words, positions: Indices, *, most: int) -> tuple[Indices, Indices]:
        """Each position with the first ``most`` members that have its key."""
        rows, others = [positions[:0]], [positions[:0]]
        at = np.searchsorted(self._keys, keys)
        for _ in range(most):
            inside = np.flatnonzero(at < len(self._keys))
            inside = inside[self._keys[at[inside]] == keys[inside]]
            if not len(inside):
                break
            at, keys, positions = at[inside], keys[inside], positions[inside]
            rows.append(positions)
            others.append(self._members[at])
            at = at + 1
        return np.concatenate(rows), np.concatenate(others)


def _begins(numbers: Indices | Words) -> Mask:
    """True where a run of equal numbers begins."""
    result = np.ones(len(numbers), bool)
    result[1:] = numbers[1:] != numbers[:-1]
    return result


def _encoded(row: Indices, other: Indices) -> Words:
    """Two positions in one number, which sorts like the pair."""
    return (row.astype(np.uint64) << np.uint64(32)) | other.astype(np.uint64)


def _decoded(codes: Words) -> tuple[Indices, Indices]:
    return (codes >> np.uint64(32)).astype(np.int64), (codes & np.uint64(0xFFFFFFFF)).astype(np.int64)
