"""The order of examples, and how a step is cut into forward passes."""

from __future__ import annotations

import pytest

from ftkit.train.batches import StepSampler, choose_micro_batch_size

LENGTHS = [(7 * index) % 50 + 1 for index in range(50)]  # all different


def order(*, seed: int = 0, epoch: int = 0, batch_size: int = 8) -> list[int]:
    sampler = StepSampler(LENGTHS, batch_size=batch_size, seed=seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == 50
    return list(sampler)


def steps(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def test_an_epoch_is_a_permutation_and_the_same_every_time():
    assert sorted(order()) == list(range(50))
    assert order(epoch=3) == order(epoch=3)


def test_every_epoch_and_every_seed_has_its_own_order():
    assert len({tuple(order(epoch=epoch, seed=seed)) for epoch in range(4) for seed in range(4)}) == 16


def test_one_sampler_gives_the_same_epoch_again_until_another_is_chosen():
    sampler = StepSampler(LENGTHS, batch_size=8, seed=0)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)

    assert first == again != list(sampler)


def test_inside_a_step_the_longest_comes_first_and_over_the_epoch_lengths_are_mixed():
    lengths = [[LENGTHS[index] for index in step] for step in steps(order(), 8)]

    assert all(step == sorted(step, reverse=True) for step in lengths)
    assert [step[0] for step in lengths] != sorted((step[0] for step in lengths), reverse=True)
    assert list(map(len, lengths)) == [8, 8, 8, 8, 8, 8, 2]


def test_the_examples_of_a_step_do_not_depend_on_their_lengths():
    flat = StepSampler([5] * 50, batch_size=8, seed=0)

    assert [set(step) for step in steps(list(flat), 8)] == [set(step) for step in steps(order(), 8)]


@pytest.mark.parametrize(
    ("length", "batch_size", "device", "expected"),
    [
        (64, 16, "cpu", 8),  # 8 x 64 = 512, the budget; 16 x 64 is over it
        (65, 16, "cpu", 4),  # 8 x 65 = 520 is over it
        (64, 12, "cpu", 6),  # the divisors are 1, 2, 3, 4, 6, 12
        (600, 16, "cpu", 1),  # one alone is over it, and one there must be
        (10, 4, "cpu", 4),
        (64, 16, "cuda", 16),
        (64, 16, "mps", 8),  # an unknown device counts as a CPU
    ],
)
def test_micro_batches_are_the_largest_divisor_within_the_token_budget(length, batch_size, device, expected):
    assert choose_micro_batch_size([length] * 20, batch_size=batch_size, device_type=device) == expected


def test_one_long_row_among_many_does_not_make_every_pass_small():
    assert choose_micro_batch_size([32] * 99 + [5000], batch_size=16, device_type="cpu") == 16
