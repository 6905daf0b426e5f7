from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.lint import Finding
from ftkit.data.lint_dataset import (
    DATASET_CODES,
    lint_answers,
    lint_lengths,
    lint_system_prompts,
    long_rows,
    summarise_findings,
)
from ftkit.data.stats import AnswerCounts, answer_classes, length_histogram, length_summary, over_max_length


def array(*lengths: int) -> np.ndarray:
    return np.array(lengths, dtype=np.int32)


def counts(*answers: str) -> AnswerCounts:
    counted = AnswerCounts()
    for answer in answers:
        counted.add(answer)
    return counted


def test_percentiles_are_lengths_of_real_sequences():
    # Of 1 to 200: the 100th, 180th, 190th and 198th; the mean is (1 + 200) / 2.
    assert length_summary(np.arange(200, 0, -1)) == {
        "min": 1, "mean": 100.5, "p50": 100, "p90": 180, "p95": 190, "p99": 198, "max": 200,
    }  # fmt: skip
    assert length_summary(array(7)) == dict.fromkeys(("min", "mean", "p50", "p90", "p95", "p99", "max"), 7)
    assert length_summary(array(1, 9))["p50"] == 1


def test_no_sequences_have_no_lengths():
    assert set(length_summary(array()).values()) == {0}
    assert length_histogram(array()) == []


def test_a_histogram_counts_in_ranges_of_one_round_width():
    # 3 to 50 in at most 24 ranges: 48 / 22 = 2.2, rounded up to 5.
    bars = length_histogram(array(3, 4, 4, 12, 50))

    assert bars[0] == {"from": 0, "to": 4, "sequences": 3}
    assert bars[2] == {"from": 10, "to": 14, "sequences": 1}
    assert bars[-1] == {"from": 50, "to": 54, "sequences": 1}
    assert len(bars) == 11


def test_an_outlier_does_not_squeeze_the_others_into_one_range():
    bars = length_histogram(np.concatenate([np.arange(100, 300), array(100_000)]))

    assert bars[-1]["to"] == 100_000
    assert bars[-1]["sequences"] == 1
    assert sum(bar["sequences"] > 0 for bar in bars) > 10


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=60))
def test_every_sequence_stands_in_exactly_one_of_a_few_ranges(lengths):
    bars = length_histogram(np.array(lengths))

    assert 1 <= len(bars) <= 25
    assert all(before["to"] + 1 == after["from"] for before, after in pairwise(bars))
    for bar in bars:
        assert bar["sequences"] == sum(bar["from"] <= length <= bar["to"] for length in lengths)
    assert sum(bar["sequences"] for bar in bars) == len(lengths)
    assert bars[0]["sequences"] > 0  # no empty ranges at the ends
    assert bars[-1]["sequences"] > 0


def test_only_rows_over_a_limit_would_be_cut_by_it():
    assert over_max_length(array(10, 256, 257, 3000)) == {"256": 2, "512": 1, "1024": 1, "2048": 1}
    assert over_max_length(array(10, 256), [300, 9, 9]) == {"9": 2, "300": 0}


def test_answers_are_counted_whatever_the_spaces_around_them():
    assert counts("yes", " yes\n", "no").to_dict() == {
        "distinct": 2, "more": False, "classes": False,
        "top": [{"text": "yes", "rows": 2, "share": 2 / 3}, {"text": "no", "rows": 1, "share": 1 / 3}],
    }  # fmt: skip
    assert counts().to_dict() is None


def test_long_answers_are_told_apart_by_beginning_and_length():
    counted = counts("a" * 300, "a" * 300, "a" * 301, "b" * 300)

    assert sorted(counted.counts.values()) == [1, 1, 2]
    assert max(map(len, counted.counts)) < 230


def test_counting_answers_keeps_to_its_memory_and_says_so(monkeypatch):
    monkeypatch.setattr(AnswerCounts, "MAX_DISTINCT", 2)
    counted = counts("a", "b", "c", "a")

    assert counted.to_dict()["top"] == [
        {"text": "a", "rows": 2, "share": 0.5}, {"text": "b", "rows": 1, "share": 0.25},
    ]  # fmt: skip
    assert counted.more
    assert counted.rows == 4


def test_counts_of_parts_add_up_to_the_counts_of_the_whole(monkeypatch):
    monkeypatch.setattr(AnswerCounts, "MAX_DISTINCT", 3)
    first, second, whole = counts("a", "b", "c", "d"), counts("a", "e"), counts("a", "b", "c", "d", "a", "e")
    first.update(second)

    assert (first.rows, first.counts, first.more) == (whole.rows, whole.counts, whole.more)
    assert first.rows == 6


def test_rows_whose_answer_was_not_counted_are_rows_of_the_whole_all_the_same(monkeypatch):
    monkeypatch.setattr(AnswerCounts, "MAX_DISTINCT", 2)
    first, second = counts("a"), counts("b", "c", "d", "e")  # of the second part, d and e are counted nowhere
    first.update(second)

    assert (first.rows, sum(first.counts.values()), first.more) == (5, 2, True)


def test_answers_are_classes_where_a_few_of_them_share_all_rows():
    assert answer_classes({"yes": 6, "no": 4}) == [
        {"text": "yes", "rows": 6, "share": 0.6}, {"text": "no", "rows": 4, "share": 0.4},
    ]  # fmt: skip
    assert answer_classes({"yes": 5, "no": 4}) == []  # under five rows a class
    assert answer_classes({"yes": 100}) == []
    assert answer_classes({str(index): 9 for index in range(1001)}) == []


@pytest.mark.parametrize(
    ("answers", "rows", "expected"),
    [
        ({"yes": 50, "no": 50}, 100, []),  # classes
        ({"yes": 91, "no": 9}, 100, ["constant-answer"]),
        ({"yes": 90, "no": 10}, 100, []),
        ({"same": 100}, 100, ["constant-answer"]),
        ({"I cannot help.": 51} | {f"answer {index}": 1 for index in range(49)}, 100, ["constant-answer"]),
        ({"I cannot help.": 40} | {f"answer {index}": 1 for index in range(60)}, 100, []),
        ({f"often {index}": 6 for index in range(10)} | {f"once {index}": 1 for index in range(40)}, 100,
         ["frequent-answers"]),
        ({f"once {index}": 1 for index in range(12)}, 12, []),
        ({"same": 9}, 9, []),  # too few rows to say anything
        ({}, 100, []),
    ],
)  # fmt: skip
def test_answers_that_stand_in_too_many_rows_are_found_and_classes_are_not(answers, rows, expected):
    assert [finding.code for finding in lint_answers(answers, rows)] == expected


def test_a_row_is_wildly_long_over_ten_times_the_median_and_the_99th_percentile():
    lengths = np.full(1000, 20)
    lengths[3], lengths[5], lengths[9] = 200, 201, 5000  # exactly ten times the median is not over it

    assert long_rows(lengths) == [9, 5]
    assert lint_lengths(lengths, {9: "a.jsonl:10"}) == [
        Finding("long-row", "a.jsonl:10", "5,000 tokens; the median is 20")
    ]
    assert long_rows(array(10, 10, 10, 200)) == []  # the 99th percentile of four rows is the longest
    assert long_rows(array()) == []


def test_system_prompts_that_differ_in_spaces_alone_are_found():
    found = lint_system_prompts({"Be brief.": 8, "Be  brief.\n": 2, "be brief.": 1, "Be kind.": 4})

    assert [(finding.code, finding.detail) for finding in found] == [
        ("system-prompt", "'Be brief.' in 8 rows, and 2 spelt a little differently in 3")
    ]
    assert lint_system_prompts({"Be brief.": 8, "Be kind.": 1}) == []


def test_findings_are_counted_whole_and_shown_in_part():
    findings = [Finding("b", f"row {index}", "x") for index in range(5)] + [Finding("a", "row 9", "y")]

    assert summarise_findings(findings, examples=2) == {
        "counts": {"b": 5, "a": 1},
        "findings": [
            {"code": "b", "where": "row 0", "detail": "x"}, {"code": "b", "where": "row 1", "detail": "x"},
            {"code": "a", "where": "row 9", "detail": "y"},
        ],
    }  # fmt: skip


def test_every_code_of_a_data_set_says_what_to_do():
    assert all(": " in meaning and meaning.endswith(".") for meaning in DATASET_CODES.values())
