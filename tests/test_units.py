"""Numbers for people never show a rounded-up unit in the smaller one's clothes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.units import format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**3 * 1.25, "1.2 GiB"),
        (1024**4 * 3, "3.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_bytes_are_shown_in_binary_units(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (1_234_567, "1.23M"),
        (134_515_008, "135M"),
        (7e9, "7B"),
        (1.5e13, "15T"),
    ],
)
def test_counts_are_shown_with_three_digits(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (95, "1 min 35 s"),
        (3599.6, "1 h 00 min"),
        (3661, "1 h 01 min"),
        (86_400, "24 h 00 min"),
    ],
)
def test_durations_are_shown_in_the_two_largest_units(seconds, text):
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=9e11))
def test_no_count_falls_into_scientific_notation(count):
    assert "e" not in format_count(count)
