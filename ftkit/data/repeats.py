"""Rows that stand twice: within the training rows, or in training and in what the model is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ftkit.data.near import NearPairs, NearSearch
from ftkit.data.ngrams import Sequences
from ftkit.data.rows import Indices, Mask, Words, content_ids

Dedup = Literal["off", "exact", "near"]

MAX_EXAMPLES = 20


class Pair(NamedTuple):
    """Two rows and the similarity of their n-gram sets; 1 for rows that are equal."""

    row: int
    other: int
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """How many rows have an equal other row, and the first pairs of them."""

    count: int
    examples: tuple[Pair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Row numbers, ascending: what is trained on, and what it is compared with."""

    train: Indices
    validation: Indices
    evaluation: Indices

    @property
    def held(self) -> Indices:
        """Rows that nothing should be learnt from."""
        return np.sort(np.concatenate([self.validation, self.evaluation]))


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What was found before anything was removed, and what is to be removed from training.

    Attributes:
        duplicates: Training rows whose content stood earlier among them.
        leaks: Validation and evaluation rows whose content is also among the training rows.
        near_duplicates: Training rows that are near to an earlier one of other content; None where nobody looked.
        near_leaks: Validation and evaluation rows that are near to a training row and equal to none; None likewise.
        removed: Training rows by the reason for leaving them out; no row has two.
    """

    duplicates: Found
    leaks: Found
    near_duplicates: Found | None
    near_leaks: Found | None
    removed: dict[str, Indices]


def find_repeats(
    digest: Words, sides: Sides, *, dedup: Dedup, sequences: Sequences | None = None, seed: int = 0
) -> Repeats:
    """Find repeats, and name those training rows that ``dedup`` leaves out.

    A row that also stands in validation or evaluation is named for that, whatever else it repeats. Near-duplicates
    are then looked for among the rows that are left, so that no row is left out for the sake of one that leaks. Of a
    chain of rows, each near to the one before, only the first is left, as is the custom (connected components).

    Args:
        digest: Of all rows; see `ftkit.data.rows.Rows`.
        sides: Which rows to compare.
        dedup: What to leave out.
        sequences: Of all rows, to look for nearly equal ones; None to look for equal ones only.
        seed: Of the search.

    Raises:
        ValueError: Nearly equal rows are to be left out, and there is nothing to find them by.
    """
    if dedup == "near" and sequences is None:
        raise ValueError("dedup='near' needs the rows' sequences")
    content = content_ids(digest)
    train = sides.train
    in_validation, in_evaluation = _marked(content, sides.validation), _marked(content, sides.evaluation)
    first_trained = np.full(len(content), -1, np.int64)
    first_trained[content[train[::-1]]] = train[::-1]  # the last one to be written is the first in file order
    first = first_trained[content[train]]
    held_twin = first_trained[content[sides.held]]
    leaky = in_validation[content[train]] | in_evaluation[content[train]]
    later, distinct = train[first != train], train[first == train]

    removed: dict[str, Indices] = {}
    if dedup != "off":
        removed["also in validation"] = train[in_validation[content[train]]]
        removed["also in evaluation"] = train[in_evaluation[content[train]] & ~in_validation[content[train]]]
        removed["duplicate"] = train[(first != train) & ~leaky]
    near_duplicates = near_leaks = None
    if sequences is not None:
        searched = np.sort(np.concatenate([distinct, sides.held]))
        search = NearSearch(sequences, searched, seed=seed)
        pairs = search.within(distinct)
        near_duplicates = _found_near(pairs)
        near_leaks = _found_near(search.across(sides.held[held_twin < 0], distinct))
        if dedup == "near":
            left = distinct[~leaky[first == train]]
            _remove_near(removed, search, left, sides, pairs if len(left) == len(distinct) else None)
    return Repeats(
        duplicates=_found_equal(later, first[first != train]),
        leaks=_found_equal(sides.held[held_twin >= 0], held_twin[held_twin >= 0]),
        near_duplicates=near_duplicates,
        near_leaks=near_leaks,
        removed=removed,
    )


def _remove_near(
    removed: dict[str, Indices], search: NearSearch, left: Indices, sides: Sides, pairs: NearPairs | None
) -> None:
    """Add to ``removed`` which of ``left`` are near to held-back rows or to each other.

    Args:
        removed: By reason; added to.
        search: Knows all of these rows.
        left: Training rows of different content.
        sides: For the rows held back.
        pairs: Near-duplicates within ``left``, where they are known and no row of it leaks.
    """
    for reason, held in (("also in validation", sides.validation), ("also in evaluation", sides.evaluation)):
        near = search.across(left, held).row
        removed[reason] = np.sort(np.concatenate([removed[reason], near]))
        left, pairs = _without(left, near), pairs if not len(near) else None
    removed["near-duplicate"] = (search.within(left) if pairs is None else pairs).row


def _without(rows: Indices, gone: Indices) -> Indices:
    return rows[~np.isin(rows, gone, assume_unique=True)]


def _marked(content: Indices, rows: Indices) -> Mask:
    """By content, whether it is that of one of ``rows``."""
    result = np.zeros(len(content), bool)
    result[content[rows]] = True
    return result


def _found_equal(rows: Indices, others: Indices) -> Found:
    shown = zip(rows[:MAX_EXAMPLES].tolist(), others[:MAX_EXAMPLES].tolist(), strict=True)
    return Found(count=len(rows), examples=tuple(Pair(row, other, 1.0) for row, other in shown))


def _found_near(pairs: NearPairs) -> Found:
    columns = (column[:MAX_EXAMPLES].tolist() for column in (pairs.row, pairs.other, pairs.similarity))
    return Found(count=len(pairs), examples=tuple(Pair(*pair) for pair in zip(*columns, strict=True)))
