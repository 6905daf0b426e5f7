"""Rows of equal content are recognised by their digests."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.rows import content_ids, mix64
from tests.data.planning import digests


@given(contents=st.lists(st.sampled_from("abcd"), max_size=20))
def test_rows_with_one_content_share_the_number_of_the_first(contents):
    assert content_ids(digests(contents)).tolist() == [contents.index(content) for content in contents]


def test_contents_that_share_half_a_digest_are_different():
    digest = np.array([[1, 2], [1, 3], [2, 2], [1, 3]], np.uint64)

    assert content_ids(digest).tolist() == [0, 1, 2, 1]


def test_numbers_are_mixed_as_splitmix64_does():
    # The generator's first outputs for the seed 0 are those of one and two steps of its increment.
    steps = np.array([1, 2], np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    assert [f"{value:016x}" for value in mix64(steps).tolist()] == ["e220a8397b1dcdaf", "6e789e6aa1b965f4"]
