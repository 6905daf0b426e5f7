"""Caps, weights and replay: what an epoch takes, how often, and what stays the same when rows come or go."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.mixture import SourceMix, Total, beyond, draw_order, mix_epoch, times_taken, totals
from tests.data.planning import digests, make_rows

NAMES = [f"row {index}" for index in range(100)]
TRAIN = SourceMix(role="train")
REPLAY = SourceMix(role="replay")


def kept(names, most, seed=0):
    return [name for name, out in zip(names, beyond(digests(names), most, seed), strict=True) if not out]


def epoch_of(counts, mixes, *, share=0.0, seed=0):
    """An epoch of sources with so many different rows each, one after the other."""
    sources = np.repeat(np.arange(len(counts)), counts).tolist()
    rows = make_rows([f"row {index}" for index in range(len(sources))], sources=sources)
    return mix_epoch(rows, np.arange(len(sources)), mixes, share=share, seed=seed)


# Caps


@pytest.mark.parametrize(("most", "left"), [(1, 1), (30, 30), (100, 100), (1000, 100)])
def test_a_cap_leaves_so_many_rows(most, left):
    assert len(kept(NAMES, most)) == left


def test_a_cap_does_not_take_the_first_rows_and_goes_by_the_seed():
    assert kept(NAMES, 30) != NAMES[:30]
    assert kept(NAMES, 30) == kept(NAMES, 30)
    assert kept(NAMES, 30, seed=1) != kept(NAMES, 30)


def test_a_cap_takes_the_same_rows_wherever_they_stand():
    assert sorted(kept(NAMES[::-1], 30)) == sorted(kept(NAMES, 30))


def test_a_smaller_cap_takes_a_part_of_what_a_larger_one_takes():
    assert set(kept(NAMES, 10)) < set(kept(NAMES, 30))


@given(
    names=st.lists(st.sampled_from(NAMES), max_size=40),
    added=st.sampled_from(NAMES),
    most=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_more_replaces_at_most_one_of_those_drawn(names, added, most, seed):
    before, after = Counter(kept(names, most, seed)), Counter(kept([*names, added], most, seed))

    assert (before - after).total() <= 1
    assert (after - before) <= Counter([added])


def test_copies_of_a_row_are_drawn_one_by_one():
    names = ["a"] * 1000 + ["b"] * 1000

    drawn = Counter(kept(names, 1000))

    assert 400 < drawn["a"] < 600  # 500 expected, standard deviation 16


def test_seeds_draw_every_row_about_equally_often():
    drawn = Counter(name for seed in range(400) for name in kept(NAMES, 25, seed))

    assert set(drawn) == set(NAMES)
    assert 60 < min(drawn.values()) < max(drawn.values()) < 145  # 100 expected, standard deviation 8.7


def test_the_second_half_of_a_digest_counts():
    one, two = (np.array([[5, half] for half in (first, 9, 10, 11)], np.uint64) for first in (1, 2))
    orders = {tuple(draw_order(digest, seed).tolist()) for seed in range(3) for digest in (one, two)}

    assert len(orders) > 3


# Weights


@pytest.mark.parametrize(
    ("weight", "times"),
    [
        (1, {1: 10}),
        (2, {2: 10}),
        (0.5, {0: 5, 1: 5}),
        (1.5, {1: 5, 2: 5}),
        (0.25, {0: 7, 1: 3}),  # 2.5 is rounded up
        (2.34, {2: 7, 3: 3}),
        (0.01, {0: 9, 1: 1}),  # never none at all
    ],
)
def test_a_weight_says_how_often_rows_are_taken(weight, times):
    epoch = epoch_of([10], [SourceMix(role="train", weight=weight)])
    taken = Counter(epoch.rows.tolist())

    assert Counter(taken[row] for row in range(10)) == times
    assert len(epoch.left_out) == times.get(0, 0)
    assert not set(epoch.left_out.tolist()) & set(taken)


def test_an_epoch_is_in_file_order():
    epoch = epoch_of([5, 5], [SourceMix(role="train", weight=1.6), TRAIN])

    assert epoch.rows.tolist() == sorted(epoch.rows.tolist())
    assert len(epoch.rows) == 8 + 5


def test_weights_of_sources_do_not_touch_each_other():
    alone = epoch_of([10], [SourceMix(role="train", weight=0.5)])
    beside = epoch_of([10, 7], [SourceMix(role="train", weight=0.5), SourceMix(role="train", weight=3)])

    assert beside.rows[:5].tolist() == alone.rows.tolist()
    assert Counter(beside.rows[5:].tolist()) == Counter(dict.fromkeys(range(10, 17), 3))


def test_another_seed_draws_other_rows():
    assert (
        len({tuple(epoch_of([20], [SourceMix(role="train", weight=0.5)], seed=seed).rows) for seed in range(5)}) == 5
    )


@given(rows=st.integers(1, 50), total=st.integers(0, 200), seed=st.integers(0, 9))
def test_rows_are_taken_equally_often_but_for_one(rows, total, seed):
    times = times_taken(digests(NAMES[:rows]), total, seed)

    assert times.sum() == total
    assert times.max() - times.min() <= 1


# Replay


def test_replay_rows_make_their_share_of_an_epoch():
    epoch = epoch_of([90, 40], [TRAIN, REPLAY], share=0.1)

    # 10 of 100.
    assert (epoch.rows < 90).sum() == 90
    assert (epoch.rows >= 90).sum() == 10
    assert len(epoch.not_drawn) == 30
    assert epoch.replay_repeats == 1


def test_too_few_replay_rows_are_repeated_and_that_is_said():
    epoch = epoch_of([60, 7], [TRAIN, REPLAY], share=0.25)

    # 20 of 80: seven rows twice and six of them once more.
    assert Counter(Counter(epoch.rows[60:].tolist()).values()) == {3: 6, 2: 1}
    assert epoch.replay_repeats == 3
    assert len(epoch.not_drawn) == 0


def test_replay_is_a_share_of_what_the_weights_leave():
    epoch = epoch_of([90, 100], [SourceMix(role="train", weight=0.2), REPLAY], share=0.1)

    assert ((epoch.rows < 90).sum(), (epoch.rows >= 90).sum()) == (18, 2)
    assert (len(epoch.left_out), len(epoch.not_drawn)) == (72, 98)


def test_a_tiny_share_is_one_row():
    assert (epoch_of([5, 5], [TRAIN, REPLAY], share=0.001).rows >= 5).sum() == 1


@pytest.mark.parametrize(("counts", "share"), [([0, 5], 0.5), ([5, 5], 0.0)])
def test_without_other_rows_or_a_share_nothing_is_replayed(counts, share):
    epoch = epoch_of(counts, [TRAIN, REPLAY], share=share)

    assert (epoch.rows >= counts[0]).sum() == 0
    assert len(epoch.not_drawn) == 5
    assert epoch.replay_repeats == 0


@given(
    train=st.integers(1, 60), replay=st.integers(1, 60), percent=st.integers(1, 99), seed=st.integers(0, 2**32 - 1)
)
def test_the_share_is_met_as_well_as_whole_rows_can(train, replay, percent, seed):
    epoch = epoch_of([train, replay], [TRAIN, REPLAY], share=percent / 100, seed=seed)
    drawn = int((epoch.rows >= train).sum())

    wanted = Fraction(percent, 100 - percent) * train
    # The share itself is a binary fraction: a half may be rounded either way.
    assert abs(drawn - wanted) <= Fraction(1, 2) + Fraction(1, 10**9) or (drawn == 1 and wanted < 1)


# Sums


def test_totals_count_repeats_by_source():
    rows = make_rows(["a", "b", "c"], sources=[0, 2, 2], lengths=[10, 20, 30])

    assert totals(rows, np.array([0, 1, 1, 2]), 3) == [
        Total(rows=1, tokens=10, supervised=4),
        Total(rows=0, tokens=0, supervised=0),
        Total(rows=3, tokens=70, supervised=12),
    ]
