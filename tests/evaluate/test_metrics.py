"""Scores worked out by hand."""

from __future__ import annotations

import pytest

from ftkit.evaluate.metrics import METRICS, exact_match, f1, rouge_l, score


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("Paris", "Paris", 1), (" Paris\n", "Paris", 1), ("paris", "Paris", 0), ("", "Paris", 0), ("", "", 1)],
)
def test_exact_match_ignores_white_space_at_the_ends_alone(answer, reference, expected):
    assert exact_match(answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The cat sat.", "a cat sat", 1.0),  # lower case, no punctuation, no articles
        ("red green", "green blue", 0.5),  # 1 common of 2 and 2: 2 x 1 / 4
        ("a red red car", "red car", 0.8),  # "red" counts once: 2 x 2 / (3 + 2)
        ("red", "blue", 0.0),
        ("", "", 1.0),
        ("the", "", 1.0),  # nothing but an article is nothing
        ("", "blue", 0.0),
        ("blue", "", 0.0),
    ],
)
def test_f1_is_the_harmonic_mean_over_words(answer, reference, expected):
    assert f1(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),  # Lin 2004: 3 in order of 4 and 4
        ("the gunman kill police", "police kill the gunman", 0.5),  # Lin 2004: "the gunman", 2 of 4
        ("A b; C", "a B c", 1.0),
        ("a b", "a x b y", 2 * 2 / (2 + 4)),
        ("", "a", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_counts_the_longest_common_subsequence_of_words(answer, reference, expected):
    assert rouge_l(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_lies_between_zero_and_one_and_is_one_for_the_reference_itself(name):
    assert METRICS[name]("some words", "some words") == 1.0
    assert METRICS[name]("other text", "some words") == 0.0


def test_score_is_the_mean_of_each_metric_over_all_pairs():
    assert score(["a b", "c"], ["a x", "c"], ["exact_match", "rouge_l"]) == {"exact_match": 0.5, "rouge_l": 0.75}
