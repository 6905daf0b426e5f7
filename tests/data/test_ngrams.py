"""What counts as boilerplate, and how rows are cut into chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.ngrams import chunks, common_limit


@pytest.mark.parametrize(("rows", "limit"), [(2, 2), (3, 2), (6, 3), (20, 10), (200, 10), (220, 11), (10_000, 500)])
def test_boilerplate_begins_at_half_of_a_few_rows_and_a_twentieth_of_many(rows, limit):
    assert common_limit(rows) == limit


@given(sizes=st.lists(st.integers(0, 50), max_size=40), budget=st.integers(1, 60), most=st.integers(1, 10))
def test_chunks_are_consecutive_and_within_their_bounds(sizes, budget, most):
    parts = list(chunks(np.array(sizes, np.int64), budget, most))

    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(len(sizes)))
    assert all(1 <= part.stop - part.start <= most for part in parts)
    assert all(sum(sizes[part]) <= budget or sum(sizes[part.start : part.stop - 1]) < budget for part in parts)
