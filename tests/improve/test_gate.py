"""The gate promotes what is better by more than chance and the margin, and nothing that forgot too much."""

from __future__ import annotations

import pytest

from ftkit.errors import UsageError
from ftkit.improve.asking import Asked
from ftkit.improve.frozen import Frozen, Question
from ftkit.improve.gate import judge
from ftkit.recipe.improve import GateSection

COUNT = 40
FROZEN = Frozen(
    questions=tuple(
        Question(messages=({"role": "user", "content": str(one)},), answers=("a",), cluster=str(one))
        for one in range(COUNT)
    ),
    sha256="",
)


def asked(scores, *, bits=None, weight=1.0):
    return Asked(scores=list(scores), weights=[weight] * COUNT, answers=[], bits_per_byte=bits)


def verdict(current, candidate, **gate):
    return judge(current, candidate, FROZEN, GateSection(**gate))


def test_lower_nats_and_higher_scores_are_better():
    high, low = asked([1.0 + one / 100 for one in range(COUNT)]), asked([0.5] * COUNT)

    assert verdict(high, low).promoted
    assert not verdict(low, high).promoted
    assert verdict(low, high, metric="f1").promoted


def test_a_gain_that_may_be_chance_is_not_promoted():
    mixed = asked([0.9 if one % 2 else 1.08 for one in range(COUNT)])

    found = verdict(asked([1.0] * COUNT), mixed)

    assert found.gain == pytest.approx(0.01)
    assert not found.promoted and "chance" in found.because


def test_equal_models_are_not_promoted():
    assert not verdict(asked([1.0] * COUNT), asked([1.0] * COUNT)).promoted


def test_the_margin_must_be_passed():
    assert verdict(asked([1.0] * COUNT), asked([0.8] * COUNT), margin=0.1).promoted
    assert not verdict(asked([1.0] * COUNT), asked([0.95] * COUNT), margin=0.1).promoted


def test_exact_match_is_tested_exactly():
    gained = asked([1.0] * 5 + [0.0] * (COUNT - 5))

    found = verdict(asked([0.0] * COUNT), gained, metric="exact_match")

    assert (found.test, found.p) == ("mcnemar", pytest.approx(2 / 2**5))
    assert not found.promoted  # five of five: 0.0625, where a bootstrap would say 0.01


def test_forgetting_beyond_what_is_allowed_is_not_promoted():
    better, allowed = [0.5] * COUNT, {"max_forgetting": 0.05}

    assert verdict(asked([1.0] * COUNT, bits=2.0), asked(better, bits=2.04), **allowed).promoted
    forgot = verdict(asked([1.0] * COUNT, bits=2.0), asked(better, bits=2.06), **allowed)
    assert not forgot.promoted and "forgot" in forgot.because


def test_nats_of_different_tokens_are_not_compared():
    with pytest.raises(UsageError, match="different tokens"):
        verdict(asked([1.0] * COUNT), asked([0.5] * COUNT, weight=2.0))
