"""The validation split depends on content alone."""

from __future__ import annotations

import random

import pytest

from ftkit.data.split import split_by_content
from tests.data.preparing import conversation

SAMPLES = [conversation(f"question {index}", f"answer {index}") for index in range(200)]


def held(samples, fraction=0.3):
    return {sample.digest for sample in split_by_content(samples, fraction)[1]}


def test_about_the_fraction_asked_for_is_held_back_and_no_row_is_lost():
    train, validation = split_by_content(SAMPLES, 0.3)

    assert 40 <= len(validation) <= 80  # 60 expected, standard deviation 6.5
    assert sorted(map(id, train + validation)) == sorted(map(id, SAMPLES))


def test_shuffling_moves_no_row_to_the_other_side():
    shuffled = random.Random(0).sample(SAMPLES, len(SAMPLES))

    assert held(shuffled) == held(SAMPLES)


def test_adding_rows_moves_no_row_to_the_other_side():
    added = [conversation(f"new {index}", "row") for index in range(50)]

    assert held(SAMPLES) == held(SAMPLES + added) & {sample.digest for sample in SAMPLES}


def test_a_larger_fraction_keeps_what_a_smaller_one_held_back():
    assert held(SAMPLES, 0.1) < held(SAMPLES, 0.3) < held(SAMPLES, 0.6)


def test_equal_rows_stay_together_wherever_they_stand():
    train, validation = split_by_content(SAMPLES + SAMPLES[::-1], 0.3)

    assert not {sample.digest for sample in train} & {sample.digest for sample in validation}


def test_rows_keep_their_order_on_both_sides():
    for side in split_by_content(SAMPLES, 0.3):
        assert side == sorted(side, key=SAMPLES.index)


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 0.999999])
@pytest.mark.parametrize("count", [2, 3])
def test_neither_side_is_empty_when_rows_differ(fraction, count):
    train, validation = split_by_content(SAMPLES[:count], fraction)

    assert train
    assert validation


@pytest.mark.parametrize("sample", SAMPLES[:5])
def test_a_single_row_is_trained_on_whatever_its_hash(sample):
    assert split_by_content([sample, sample], 0.999999) == ([sample, sample], [])


def test_a_fraction_of_zero_holds_nothing_back():
    assert split_by_content(SAMPLES, 0.0) == (SAMPLES, [])
