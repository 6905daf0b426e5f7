"""Which examples share a pack, and what a pack looks like to a model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.collate import collate_packed, split_packs
from ftkit.data.example import TokenizedExample
from ftkit.data.packing import best_fit

LENGTHS = st.lists(st.integers(1, 120), min_size=0, max_size=60)
LIMITS = st.integers(1, 150)


def example(ids, labels):
    return TokenizedExample(
        input_ids=ids, labels=labels, answer_start=1, stop_id=ids[-1], answer="", place="rows.jsonl:1"
    )


A = example([5, 6, 7], [-100, 6, 7])
B = example([8, 9], [-100, 9])
C = example([10, 11, 12, 13], [-100, -100, -100, 13])


@pytest.mark.parametrize(
    ("lengths", "limit", "packs"),
    [
        ([], 10, []),
        ([4], 10, [[0]]),
        # 6 and 5 open packs; 4 fits behind 6 (room 4) better than behind 5 (room 5); 3 and then 2 go behind 5.
        ([5, 4, 6, 2, 3], 10, [[2, 1], [0, 4, 3]]),
        # 12 and 10 open packs, 9 goes behind 10; 1 goes behind them (room 1), not into the first pack (room 8).
        ([12, 10, 9, 1], 20, [[0], [1, 2, 3]]),
        ([12, 1], 10, [[0], [1]]),  # longer than the limit: alone, and nothing joins it
        ([5, 5, 5], 10, [[0, 1], [2]]),  # equal ones in their order
        ([10, 10], 10, [[0], [1]]),
    ],
)
def test_the_longest_first_each_into_the_fullest_pack_that_has_room(lengths, limit, packs):
    assert best_fit(lengths, limit) == packs


@given(LENGTHS, LIMITS)
def test_every_item_stands_in_exactly_one_pack(lengths, limit):
    packs = best_fit(lengths, limit)

    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs)


@given(LENGTHS, LIMITS)
def test_no_pack_is_over_the_limit_unless_one_item_alone_is(lengths, limit):
    for pack in best_fit(lengths, limit):
        assert len(pack) == 1 or sum(lengths[index] for index in pack) <= limit


@given(LENGTHS, LIMITS)
def test_the_same_lengths_give_the_same_packs(lengths, limit):
    assert best_fit(lengths, limit) == best_fit(list(lengths), limit)


@given(LENGTHS, LIMITS)
def test_no_two_packs_could_be_one(lengths, limit):
    sums = sorted(sum(lengths[index] for index in pack) for pack in best_fit(lengths, limit))

    assert len(sums) < 2 or sums[0] + sums[1] > limit


@st.composite
def cut_up(draw):
    """Packs that are full to the brim, cut into items: the fewest possible packs are known."""
    count, limit = draw(st.integers(1, 8)), draw(st.integers(2, 100))
    items: list[int] = []
    for _ in range(count):
        cuts = sorted(draw(st.sets(st.integers(1, limit - 1), max_size=5)))
        items += [end - start for start, end in zip([0, *cuts], [*cuts, limit], strict=True)]
    return draw(st.permutations(items)), limit, count


@settings(max_examples=300)
@given(cut_up())
def test_it_takes_at_most_eleven_ninths_of_the_fewest_packs_and_one(case):
    items, limit, fewest = case
    assert fewest == math.ceil(sum(items) / limit)

    assert fewest <= len(best_fit(items, limit)) <= 11 / 9 * fewest + 1


@given(LENGTHS.filter(bool), LIMITS)
def test_the_longest_item_is_in_the_first_pack_so_that_what_does_not_fit_fails_at_once(lengths, limit):
    assert max(lengths) == lengths[best_fit(lengths, limit)[0][0]]


def test_examples_stand_behind_one_another_each_with_positions_of_its_own():
    step = collate_packed([A, B], pack_length=5)

    assert {name: value if name == "pack_lengths" else value.tolist() for name, value in step.items()} == {
        "input_ids": [[5, 6, 7, 8, 9]],
        "position_ids": [[0, 1, 2, 0, 1]],
        "labels": [[-100, 6, 7, -100, 9]],
        "pack_lengths": [5],
    }


def test_the_packs_of_a_step_are_cut_apart_again():
    # 4 and 3 do not fit into 6 together; 2 goes behind 4.
    packs = split_packs(collate_packed([A, B, C], pack_length=6))

    assert [{name: value.tolist() for name, value in pack.items()} for pack in packs] == [
        {
            "input_ids": [[10, 11, 12, 13, 8, 9]],
            "position_ids": [[0, 1, 2, 3, 0, 1]],
            "labels": [[-100, -100, -100, 13, -100, 9]],
        },
        {"input_ids": [[5, 6, 7]], "position_ids": [[0, 1, 2]], "labels": [[-100, 6, 7]]},
    ]


def test_nothing_predicts_the_first_token_of_an_example_whatever_its_label():
    step = collate_packed([A, example([8, 9], [8, 9])], pack_length=5)

    assert step["labels"].tolist() == [[-100, 6, 7, -100, 9]]


def test_the_longest_example_of_a_step_may_be_longer_than_a_pack_and_then_sets_its_length():
    # 4 is longer than 3, so packs have 4: 3 and 1 fit together.
    step = collate_packed([A, C, example([14], [-100])], pack_length=3)

    assert step["pack_lengths"] == [4, 4]
    assert step["input_ids"].tolist() == [[10, 11, 12, 13, 5, 6, 7, 14]]


def test_no_token_of_a_step_is_padding_and_none_is_lost():
    rows = [example(list(range(4, 4 + length)), [-100] * (length - 1) + [7]) for length in (9, 3, 14, 2, 6, 11)]

    step = collate_packed(rows, pack_length=16)

    assert sorted(step["input_ids"][0].tolist()) == sorted(token for row in rows for token in row.input_ids)
    assert sum(step["pack_lengths"]) == 45  # 9 + 3 + 14 + 2 + 6 + 11
    assert step["pack_lengths"] == [16, 14, 15]  # 14 + 2, 11 + 3, 9 + 6
