"""What stands twice is counted as found, and left out of training for the right reason."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ftkit.data.repeats import Pair, Sides, find_repeats
from tests.data.planning import digests, make_sequences, near_tokens

# Rows that look like nothing else: with them, two near rows are no boilerplate.
OTHERS = [f"other {index}" for index in range(20)]


def repeats(train, validation=(), evaluation=(), *, dedup="off", near=True):
    """Search rows named in this order: training, validation, evaluation."""
    names = [*train, *OTHERS, *validation, *evaluation]
    ends = np.cumsum([len(train) + len(OTHERS), len(validation), len(evaluation)])
    sides = Sides(
        train=np.arange(ends[0]), validation=np.arange(ends[0], ends[1]), evaluation=np.arange(ends[1], ends[2])
    )
    sequences = make_sequences([near_tokens(name) for name in names]) if near else None
    return find_repeats(digests(names), sides, dedup=dedup, sequences=sequences)


def removed(found):
    return {reason: rows.tolist() for reason, rows in found.removed.items() if len(rows)}


def test_a_training_row_that_stood_earlier_is_a_duplicate_of_the_first_one():
    found = repeats(["a", "b", "a", "a", "b"], near=False)

    assert found.duplicates.count == 3
    assert found.duplicates.examples == (Pair(2, 0, 1.0), Pair(3, 0, 1.0), Pair(4, 1, 1.0))


def test_every_held_back_row_that_is_also_trained_on_is_a_leak_joined_to_the_first_such_row():
    found = repeats(["a", "b", "b"], ["b", "b", "c"], ["a"], near=False)

    assert found.leaks.count == 3
    assert found.leaks.examples == (Pair(23, 1, 1.0), Pair(24, 1, 1.0), Pair(26, 0, 1.0))


def test_rows_that_stand_twice_only_in_validation_are_neither():
    found = repeats(["a"], ["c", "c"], ["c"], near=False)

    assert (found.duplicates.count, found.leaks.count) == (0, 0)


def test_without_a_search_near_counts_are_unknown():
    found = repeats(["a", "a'"], near=False)

    assert (found.near_duplicates, found.near_leaks) == (None, None)


def test_near_duplicates_and_near_leaks_are_counted_beside_the_equal_ones():
    found = repeats(["a", "a", "a'", "b"], ["b'", "b", "c"], ["b'"])

    assert found.duplicates.count == 1
    assert found.near_duplicates.examples == (Pair(2, 0, 45 / 55),)
    assert found.leaks.examples == (Pair(25, 3, 1.0),)
    assert found.near_leaks.examples == (Pair(24, 3, 45 / 55), Pair(27, 3, 45 / 55))
    assert (found.near_duplicates.count, found.near_leaks.count) == (1, 2)


def test_at_most_twenty_examples_are_shown_of_any_number_found():
    found = repeats([*"abcdefghijklmnopqrstuvwxy"] * 2, near=False)

    assert found.duplicates.count == 25
    assert len(found.duplicates.examples) == 20


def test_nothing_is_left_out_unless_asked_for():
    assert removed(repeats(["a", "a", "a'", "b"], ["b"], dedup="off")) == {}


def test_exact_leaves_out_later_copies_and_all_that_is_held_back():
    found = repeats(["a", "b", "a", "c", "b", "a'", "d"], ["b", "d'"], ["c", "b"], dedup="exact")

    assert removed(found) == {"also in validation": [1, 4], "also in evaluation": [3], "duplicate": [2]}


def test_near_leaves_out_rows_near_to_what_is_held_back_and_to_earlier_ones():
    found = repeats(["a", "b", "a", "c'", "b", "a'", "d"], ["b", "d'"], ["c", "b"], dedup="near")

    assert removed(found) == {
        "also in validation": [1, 4, 6],
        "also in evaluation": [3],
        "duplicate": [2],
        "near-duplicate": [5],
    }


@pytest.mark.parametrize(
    ("held", "reason"), [("validation", "also in validation"), ("evaluation", "also in evaluation")]
)
def test_no_row_is_left_out_for_being_near_to_one_that_leaks(held, reason):
    # Of two near rows the first is held back too. The second is near to the held-back row as well, unless it differs
    # from it elsewhere: here by as much again, 40 of 60 n-grams.
    row = random.Random(0).sample(range(1000, 50_000), 54)
    second = [*row[:13], 7, *row[14:]]
    third = [*second[:40], 8, *second[41:]]
    others = [near_tokens(name) for name in OTHERS]
    rows = [row, second, third, *others, row]
    sides = {"validation": np.zeros(0, np.int64), "evaluation": np.zeros(0, np.int64), held: np.array([23])}
    digest = digests(["row", "second", "third", *OTHERS, "row"])

    found = find_repeats(digest, Sides(train=np.arange(23), **sides), dedup="near", sequences=make_sequences(rows))

    assert removed(found) == {reason: [0, 1]}
    assert [pair[:2] for pair in found.near_duplicates.examples] == [(1, 0), (2, 1)]


def test_of_a_chain_of_near_rows_the_first_is_left():
    row = random.Random(0).sample(range(1000, 50_000), 54)
    second = [*row[:13], 7, *row[14:]]
    third = [*second[:40], 8, *second[41:]]
    rows = [row, second, third, *(near_tokens(name) for name in OTHERS)]
    none = np.zeros(0, np.int64)
    digest = digests(["row", "second", "third", *OTHERS])

    found = find_repeats(
        digest,
        Sides(train=np.arange(23), validation=none, evaluation=none),
        dedup="near",
        sequences=make_sequences(rows),
    )

    assert removed(found) == {"near-duplicate": [1, 2]}


def test_near_without_anything_to_compare_is_a_mistake_in_the_call():
    with pytest.raises(ValueError, match="needs the rows' sequences"):
        repeats(["a"], dedup="near", near=False)
