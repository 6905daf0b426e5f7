"""Rows given in Python in place of a file: what counts as rows, where they go, and what cannot be stored."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Mapping
from pathlib import Path

import numpy
import pyarrow
import pytest
from pydantic import ValidationError

from ftkit.recipe import DataSection
from ftkit.recipe.base import ClashError
from ftkit.recipe.rows import UnwritableError, json_line, store_rows

ROWS = [{"prompt": "hi", "completion": "yo"}, {"prompt": "Grüße", "completion": "漢字"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stored(section: DataSection) -> list[dict]:
    (source,) = section.train
    return [json.loads(line) for line in Path(source.path).read_text(encoding="utf-8").splitlines()]


class Table:
    """What of ``datasets.Dataset`` is asked for: the names of its columns, and its rows one after the other."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize("give", [list, tuple, Table, pyarrow.Table.from_pylist])
def test_rows_in_place_of_a_file_are_written_to_the_cache_and_named_by_their_content(give, cache):
    section = DataSection(train=give(ROWS))

    assert stored(section) == ROWS
    # SHA-256 of the two lines of JSON, computed with sha256sum.
    assert section.train[0].path == str(
        cache / "rows" / "d735b5b1876ca389ff2f242a98c0ed15aaae933cf7963587267c59a3f8a07d1d.jsonl"
    )


def test_equal_rows_are_one_file_and_other_rows_are_another(cache):
    first, again, other = store_rows(ROWS), store_rows(tuple(ROWS)), store_rows(ROWS[::-1])

    assert first == again != other
    assert sorted(path.name for path in (cache / "rows").iterdir()) == sorted(
        Path(path).name for path in (first, other)
    )


def test_a_recipe_whose_rows_were_stored_can_be_checked_again_as_plain_data():
    section = DataSection(train=ROWS)

    assert DataSection.model_validate(section.model_dump()) == section


def test_the_data_section_itself_may_be_rows():
    assert stored(DataSection.model_validate(ROWS)) == ROWS
    assert stored(DataSection.model_validate(Table(ROWS))) == ROWS


@pytest.mark.parametrize(
    "sources",
    [
        "rows.jsonl",
        ["rows.jsonl", "b.jsonl"],
        {"path": "rows.jsonl"},
        [{"path": "rows.jsonl", "weight": 2.0}, {"path": "b.jsonl"}],
        [{"path": "rows.jsonl"}, "b.jsonl"],
    ],
)
def test_sources_stay_sources(sources, cache):
    section = DataSection.model_validate({"train": sources})

    assert {Path(source.path).name for source in section.train} <= {"rows.jsonl", "b.jsonl"}
    assert not (cache / "rows").exists()


@pytest.mark.parametrize(
    "sources",
    [
        [{"path": "rows.jsonl"}, {"prompt": "hi"}],
        [{"format": "text", "weight": 2.0}],
        [{"pth": "rows.jsonl", "weight": 2.0}],
        [{}],
        [],
        [1, 2],
    ],
)
def test_sources_with_a_slip_are_faults_and_not_rows(sources, cache):
    with pytest.raises(ValidationError):
        DataSection.model_validate({"train": sources})
    assert not (cache / "rows").exists()


def test_fields_that_arrow_adds_to_structs_are_left_out_again_but_a_lists_rows_stay_as_given():
    rows = [{"messages": [{"role": "user", "content": "hi", "weight": None}], "note": None}]

    assert stored(DataSection(train=Table(rows))) == [{"messages": [{"role": "user", "content": "hi"}], "note": None}]
    assert stored(DataSection(train=rows)) == rows


def test_values_that_json_has_no_word_for_become_text_number_or_null():
    row = {
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9),
        "day": datetime.date(2024, 5, 6),
        "took": datetime.timedelta(seconds=90),
        "price": decimal.Decimal("1.50"),
        "bytes": "é".encode(),
        "numbers": [float("nan"), float("-inf"), 1.5],
        "numpy": [numpy.float32(0.5), numpy.int64(3), numpy.array([1.0, float("nan")])],
        "cut": "\ud83d",
    }

    assert json.loads(json_line(row)) == {
        "when": "2024-05-06T07:08:09",
        "day": "2024-05-06",
        "took": 90.0,
        "price": "1.50",
        "bytes": "é",
        "numbers": [None, None, 1.5],
        "numpy": [0.5, 3, [1.0, None]],
        "cut": "\ud83d",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xff", "x: holds bytes that are not UTF-8 text (byte 0xff)"),
        ({1, 2}, "x: holds a set, which is neither text nor number"),
        ([object()], "x: holds a object, which is neither text nor number"),
    ],
)
def test_a_value_that_cannot_be_stored_names_its_column(value, expected):
    with pytest.raises(UnwritableError) as caught:
        json_line({"a": 1, "x": value})
    assert str(caught.value) == expected


def test_a_value_nested_without_end_is_a_fault_and_not_a_crash():
    endless: list = []
    endless.append(endless)

    with pytest.raises(UnwritableError, match="x: "):
        json_line({"x": endless})


class Splits(dict):
    """What a ``datasets.DatasetDict`` is: a mapping that has names of columns."""

    column_names: Mapping[str, list[str]] = {}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"a": 1}, 3], "row 1 is a int, not a mapping of names to values"),
        ([{"a": 1}, {"a": {2}}], "row 1: a: holds a set, which is neither text nor number"),
        (iter([]), "has no rows"),
        (Splits(train=[], test=[]), "is a dictionary of splits (train, test); give one of them"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused_and_leave_nothing_behind(rows, expected, cache):
    with pytest.raises(ClashError) as caught:
        store_rows(rows)

    assert str(caught.value) == expected
    assert list((cache / "rows").iterdir()) == []


def test_a_fault_of_the_rows_is_a_fault_of_the_recipe():
    with pytest.raises(ValidationError, match="row 0: a: holds a set"):
        DataSection(train=[{"a": {1}}])


def test_a_cache_that_cannot_be_written_is_a_fault_and_not_a_crash(cache):
    cache.mkdir()
    (cache / "rows").write_text("a file where the folder should be")

    with pytest.raises(ClashError) as caught:
        store_rows(ROWS)
    assert str(caught.value) == f"rows given in Python cannot be written to {cache}/rows: File exists"
