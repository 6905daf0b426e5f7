"""Intervals: what they enclose, and that questions about one document count as one."""

from __future__ import annotations

import numpy as np
import pytest

from ftkit.rag.intervals import Quantile, Ratio, RiskArea, intervals_of, values_of
from ftkit.rag.threshold import choose_threshold


def mean(values):
    return Ratio(numerators=np.array(values, dtype=float), denominators=np.ones(len(values)))


def test_the_interval_of_a_share_is_that_of_the_binomial():
    # 100 questions of their own documents, half of them right: 0.5 ± 1.96 · sqrt(0.25 / 100) = 0.402 to 0.598.
    found = intervals_of({"share": mean([0, 1] * 50)}, [str(one) for one in range(100)])

    assert found["share"] == pytest.approx((0.402, 0.598), abs=0.011)


def test_copies_of_a_question_do_not_narrow_an_interval():
    once = intervals_of({"share": mean([0, 1] * 10)}, [str(one) for one in range(20)])
    values, clusters = [0, 1] * 10 * 5, [str(one % 20) for one in range(100)]

    assert intervals_of({"share": mean(values)}, clusters) == once


def test_the_same_questions_give_the_same_interval():
    figures, clusters = {"m": mean([0.2, 0.4, 0.9])}, ["a", "b", "b"]

    assert intervals_of(figures, clusters) == intervals_of(figures, clusters)


def test_a_ratio_weighs_by_its_denominator_and_may_have_none():
    figures = {
        "nll": Ratio(numerators=np.array([6.0, 2.0, 0.0]), denominators=np.array([3.0, 1.0, 0.0])),
        "none": Ratio(numerators=np.zeros(3), denominators=np.zeros(3)),
    }

    assert values_of(figures, 3) == {"nll": 2.0, "none": None}  # (6 + 2) / (3 + 1)
    assert intervals_of(figures, ["a", "b", "c"])["none"] is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.01, 1)])
def test_a_quantile_is_a_value_that_occurred(share, value):
    values = np.arange(20, 0, -1, dtype=float)

    assert values_of({"q": Quantile(values=values, share=share)}, 20) == {"q": value}
    low, high = intervals_of({"q": Quantile(values=values, share=share)}, [str(one) for one in values])["q"]
    assert low <= value <= high


def test_the_area_is_the_one_of_the_curve():
    confidences, right = [-0.5, -0.5, -1.0, None, -0.1], [True, False, True, False, False]
    area = RiskArea(
        confidences=np.array([np.nan if one is None else one for one in confidences]),
        wrong=np.array([not one for one in right], dtype=float),
    )

    assert values_of({"a": area}, 5)["a"] == pytest.approx(choose_threshold(confidences, right, 1.0).area)


def test_one_cluster_alone_has_no_interval():
    assert intervals_of({"m": mean([0, 1, 1])}, ["a", "a", "a"]) == {"m": None}
