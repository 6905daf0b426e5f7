"""The validation split depends on content, or on the group, alone."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.split import hold_back
from tests.data.planning import digests

NAMES = [f"row {index}" for index in range(200)]


def held(names, fraction=0.3):
    return {name for name, is_held in zip(names, hold_back(digests(names)[:, 0], fraction), strict=True) if is_held}


def test_a_row_is_held_back_when_the_first_sixteen_hex_digits_of_its_sha256_are_below_the_fraction():
    # SHA-256 begins with 18ac for d, with 3e23 for b and with ca97 for a: 0.096, 0.243 and 0.791 of the range.
    assert [hashlib.sha256(name.encode()).hexdigest()[:4] for name in "dba"] == ["18ac", "3e23", "ca97"]

    assert held(["a", "b", "d"], 0.24) == {"d"}
    assert held(["a", "b", "d"], 0.25) == {"b", "d"}
    assert held(["a", "b", "d"], 0.79) == {"b", "d"}


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.9])
def test_the_choice_is_that_of_comparing_hexadecimal_digests(fraction):
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in NAMES}

    assert held(NAMES, fraction) == {name for name in NAMES if int(digest[name][:16], 16) < int(fraction * 16**16)}


def test_about_the_fraction_asked_for_is_held_back():
    assert 40 <= len(held(NAMES)) <= 80  # 60 expected, standard deviation 6.5


def test_shuffling_moves_no_row_to_the_other_side():
    assert held(random.Random(0).sample(NAMES, len(NAMES))) == held(NAMES)


def test_adding_and_removing_rows_moves_no_other_row_to_the_other_side():
    added = NAMES + [f"new {index}" for index in range(50)]

    assert held(added) & set(NAMES) == held(NAMES)
    assert held(NAMES[50:]) == held(NAMES) & set(NAMES[50:])


def test_a_larger_fraction_keeps_what_a_smaller_one_held_back():
    assert held(NAMES, 0.1) < held(NAMES, 0.3) < held(NAMES, 0.6)


@pytest.mark.parametrize("fraction", [1e-30, 1e-9, 0.5, 0.999999, 1 - 2**-53])
@pytest.mark.parametrize("count", [2, 3])
def test_neither_side_is_empty_when_groups_differ(fraction, count):
    assert 0 < len(held(NAMES[:count], fraction)) < count


def test_the_least_hash_is_held_back_and_the_greatest_trained_on_where_a_side_would_be_empty():
    groups = np.array([7, 5, 2**63, 5], np.uint64)

    assert hold_back(groups, 2**-64).tolist() == [False, True, False, True]  # the limit is 1: none is below
    assert hold_back(groups, 0.75).tolist() == [True, True, False, True]  # the limit is 3 * 2**62: all are below


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 0.999999])
@pytest.mark.parametrize("name", NAMES[:5])
def test_a_single_group_is_trained_on_whatever_its_hash(name, fraction):
    assert not hold_back(digests([name, name])[:, 0], fraction).any()


def test_a_fraction_of_zero_holds_nothing_back():
    assert held(NAMES, 0.0) == set()


def test_no_rows_are_split_into_none():
    assert hold_back(np.zeros(0, np.uint64), 0.5).tolist() == []


@given(
    groups=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=30),
    fraction=st.floats(0, 1, exclude_max=True),
)
def test_a_group_never_straddles_and_neither_side_is_empty(groups, fraction):
    mask = hold_back(np.array(groups, np.uint64), fraction).tolist()

    sides = {
        group: {is_held for other, is_held in zip(groups, mask, strict=True) if other == group} for group in groups
    }
    assert all(len(side) == 1 for side in sides.values())
    if fraction > 0 and len(sides) > 1:
        assert set(mask) == {True, False}


@given(
    kept=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    others=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    fraction=st.floats(0.01, 0.99),
    order=st.randoms(use_true_random=False),
)
def test_other_rows_never_move_a_row_once_both_sides_have_one(kept, others, fraction, order):
    # The least and the greatest hash there are keep both sides filled, so that the rule for empty sides stays out.
    kept = [0, *kept, 2**64 - 1]
    mixed = kept + others
    order.shuffle(mixed)

    def sides(groups):
        return dict(zip(groups, hold_back(np.array(groups, np.uint64), fraction).tolist(), strict=True))

    assert sides(kept).items() <= sides(mixed).items()
