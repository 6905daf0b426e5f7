"""The report accounts for every row; long rows, duplicates, leaks and the digest."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.errors import DataError
from tests.data.preparing import chat, prepare_path, prepare_rows, write_jsonl

# 16 tokens with the answer "yo": 12 of prompt, the answer's 2, <|im_end|> and the line break; a letter adds one.
SHORT = chat("hi", "yo")
LONG = chat("hi", "yo" + "z" * 14)


def test_a_row_longer_than_max_length_is_an_error_that_says_how_long_it_is(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: 30 tokens, data\.max_length is 29\n.*drop or truncate"):
        prepare_rows(tmp_path, [SHORT, LONG], max_length=29)
    assert prepare_rows(tmp_path, [SHORT, LONG], max_length=30).report.lengths["max"] == 30


def test_drop_leaves_long_rows_out_and_counts_them(tmp_path):
    report = prepare_rows(tmp_path, [SHORT, LONG, LONG], max_length=29, overflow="drop").report

    assert (report.rows_in, report.trained, report.dropped) == (3, 1, {"longer than max_length": 2})
    assert (report.truncated, report.tokens, report.supervised_tokens) == (0, 16, 3)


def test_truncate_cuts_long_rows_at_the_end_and_counts_them_among_the_trained(tmp_path):
    prepared = prepare_rows(tmp_path, [SHORT, LONG], max_length=20, overflow="truncate")
    whole = prepare_rows(tmp_path, [SHORT, LONG])

    assert prepared.train[1].input_ids == whole.train[1].input_ids[:20]
    assert prepared.train[1].labels == whole.train[1].labels[:20]
    assert (prepared.report.trained, prepared.report.truncated, prepared.report.dropped) == (2, 1, {})
    assert (prepared.report.tokens, prepared.report.supervised_tokens) == (16 + 20, 3 + 8)


def test_truncation_that_cuts_the_whole_answer_off_names_the_row(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no token of this row counts towards the loss"):
        prepare_rows(tmp_path, [chat("a", "b"), chat("h" * 40, "yo")], max_length=20, overflow="truncate")


def test_when_every_row_is_dropped_nothing_is_left_to_train_on(tmp_path):
    with pytest.raises(
        DataError, match=r"no row is left to train on \(1 longer than max_length\)\n  Raise data\.max_length"
    ):
        prepare_rows(tmp_path, [LONG], max_length=20, overflow="drop")


words = st.text("abc xyz", min_size=1, max_size=30).filter(str.strip)
rows = st.lists(st.lists(words, min_size=2, max_size=2).map(lambda texts: chat(*texts)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(rows=rows, max_length=st.integers(13, 60), fraction=st.sampled_from([0.0, 0.2, 0.7]))
def test_rows_in_are_trained_or_validation_or_dropped_whatever_the_rows(rows, max_length, fraction):
    with tempfile.TemporaryDirectory() as folder:
        try:
            prepared = prepare_rows(Path(folder), rows, max_length=max_length, overflow="drop", validation=fraction)
        except DataError as error:
            assert "no row is left to train on" in str(error)
            return
    report = prepared.report
    assert report.rows_in == len(rows) == report.trained + report.validation + sum(report.dropped.values())
    assert (report.trained, report.validation) == (len(prepared.train), len(prepared.validation))
    assert all(len(example.input_ids) <= max_length for example in [*prepared.train, *prepared.validation])
    assert report.tokens == sum(len(example.input_ids) for example in prepared.train)
    assert report.supervised_tokens == sum(example.supervised_tokens for example in prepared.train)


def test_lengths_are_percentiles_of_the_training_rows_by_nearest_rank(tmp_path):
    rows = [chat("hi", "y" * (index + 1)) for index in range(20)]  # 15, 16, ... 34 tokens; the 10th of them is 24

    assert prepare_rows(tmp_path, rows).report.lengths == {
        "min": 15, "mean": 24.5, "p50": 24, "p90": 32, "p95": 33, "p99": 34, "max": 34,
    }  # fmt: skip


def test_duplicates_are_training_rows_that_stood_earlier(tmp_path):
    report = prepare_rows(tmp_path, [SHORT, LONG, SHORT, SHORT]).report

    assert (report.rows_in, report.trained, report.duplicates, report.leaks) == (4, 4, 2, 0)


def test_leaks_are_validation_rows_that_are_trained_on_too(tmp_path):
    validation = write_jsonl(tmp_path / "held.jsonl", [LONG, chat("new", "row"), LONG])
    report = prepare_rows(tmp_path, [SHORT, LONG], validation=str(validation)).report

    assert (report.rows_in, report.validation, report.leaks) == (5, 3, 2)
    assert [Path(file.path).name for file in report.files] == ["rows.jsonl", "held.jsonl"]


def test_a_row_in_another_layout_is_still_the_same_row(tmp_path):
    held = write_jsonl(tmp_path / "held.jsonl", [{"prompt": "hi", "completion": "yo"}])

    assert prepare_rows(tmp_path, [SHORT], validation=str(held)).report.leaks == 1


def test_the_digest_tells_content_order_labels_and_sides_apart_and_nothing_else(tmp_path):
    def digest(rows, **settings):
        return prepare_rows(tmp_path, rows, **settings).report.digest

    rows = [SHORT, LONG, chat("one", "two", "three", "four")]
    other_name = tmp_path / "other"
    other_name.mkdir()
    assert digest(rows) == digest(rows) == prepare_rows(other_name, rows).report.digest
    different = {
        digest(rows),
        digest([*rows[:2], chat("one", "two", "three", "five")]),
        digest(rows[::-1]),
        digest(rows, train_on="last"),
        digest(rows, validation=0.5),
    }
    assert len(different) == 5


def test_stop_tokens_are_those_that_end_the_answers(tmp_path):
    prepared = prepare_rows(tmp_path, [SHORT])

    assert (prepared.stop_token_ids, prepared.report.stop_tokens) == ([2], ["<|im_end|>"])
    assert prepared.report.chat_template


def test_the_report_as_written_to_disk_adds_up(tmp_path):
    facts = prepare_rows(tmp_path, [SHORT, LONG], max_length=20, overflow="drop").report.to_dict()

    assert facts["rows_in"] == facts["trained"] + facts["validation"] + sum(facts["dropped"].values()) == 2
    assert facts["files"][0]["rows"] == 2
    assert len(facts["files"][0]["sha256"]) == 64


def test_progress_counts_bytes_up_to_the_size_of_the_files(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [SHORT, LONG, chat("a", "b")])
    size = path.stat().st_size
    seen = []

    prepare_path(path, progress=lambda *done: seen.append(done))

    assert seen == sorted(seen)
    assert {total for _, total in seen} == {size}
    assert seen[-1] == (size, size)
