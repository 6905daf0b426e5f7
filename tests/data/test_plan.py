"""Every row is trained on, held back, or left out for one reason; and all of it adds up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ftkit.data import plan as plan_module
from ftkit.data.mixture import SourceMix
from ftkit.data.plan import PlanSettings, make_plan
from ftkit.data.repeats import Pair
from ftkit.data.split import hold_back
from tests.data.planning import digests, make_rows, make_sequences, near_tokens

TRAIN, VALIDATION, EVALUATION, REPLAY = (
    SourceMix(role=role) for role in ("train", "validation", "evaluation", "replay")
)
NAMES = [f"row {index}" for index in range(100)]


def plan(contents, sources=(TRAIN,), *, of=None, groups=None, lengths=None, sequences=None, **settings):
    rows = make_rows(contents, sources=of, groups=groups, lengths=lengths)
    return make_plan(rows, sources, PlanSettings(**settings), sequences)


def adds_up(result):
    return result.rows_in == len(result.train) + len(result.validation) + sum(result.dropped.values())


def test_rows_that_nothing_is_said_about_are_all_trained_on_once():
    result = plan(NAMES)

    assert result.train.tolist() == result.epoch.tolist() == list(range(100))
    assert result.validation.tolist() == []
    assert result.dropped == {}
    assert result.rows_in == 100


def test_the_split_is_the_one_by_content():
    result = plan(NAMES, validation=0.3)

    assert result.validation.tolist() == np.flatnonzero(hold_back(digests(NAMES)[:, 0], 0.3)).tolist()
    assert sorted([*result.train, *result.validation]) == list(range(100))


def test_validation_and_evaluation_files_are_held_back_and_only_the_first_are_counted():
    result = plan(["a", "b", "c", "d"], [TRAIN, VALIDATION, EVALUATION], of=[0, 0, 1, 2])

    assert result.train.tolist() == [0, 1]
    assert result.validation.tolist() == [2]
    assert result.rows_in == 3


def test_rows_over_the_limit_are_left_out_on_both_sides_but_not_from_evaluation():
    sources = [TRAIN, VALIDATION, EVALUATION]
    result = plan(["a", "b", "c", "d", "b"], sources, of=[0, 0, 1, 1, 2], lengths=[8, 9, 8, 9, 9], max_length=8)

    assert (result.train.tolist(), result.validation.tolist()) == ([0], [2])
    assert result.dropped == {"longer than max_length": 2}
    assert result.leaks.count == 0  # what is too long to be trained on cannot leak


def test_a_cap_comes_first_and_a_dropped_row_has_one_reason():
    result = plan(["a"] * 10, [SourceMix(role="train", max_rows=4)], lengths=[99] * 10, max_length=8)

    assert result.dropped == {"beyond max_rows": 6, "longer than max_length": 4}
    assert result.train.tolist() == []


def test_a_cap_holds_for_its_own_source():
    result = plan(NAMES, [SourceMix(role="train", max_rows=10), TRAIN], of=[0] * 50 + [1] * 50)

    assert ((result.train < 50).sum(), (result.train >= 50).sum()) == (10, 50)
    assert result.dropped == {"beyond max_rows": 40}


def test_the_cap_is_applied_before_the_split():
    result = plan(NAMES, [SourceMix(role="train", max_rows=20)], validation=0.5)

    assert len(result.train) + len(result.validation) == 20


def test_weights_touch_neither_the_split_nor_the_held_back_rows():
    plain = plan(NAMES, validation=0.3)
    weighted = plan(NAMES, [SourceMix(role="train", weight=0.5)], validation=0.3)

    assert weighted.validation.tolist() == plain.validation.tolist()
    assert len(weighted.train) == len(weighted.epoch) == (len(plain.train) + 1) // 2
    assert weighted.dropped == {"left out by weight": len(plain.train) // 2}


def test_a_row_that_is_taken_twice_is_one_row_of_the_account():
    result = plan(NAMES, [SourceMix(role="train", weight=2)])

    assert result.train.tolist() == list(range(100))
    assert Counter(result.epoch.tolist()) == Counter(dict.fromkeys(range(100), 2))
    assert adds_up(result)


def test_replay_rows_are_never_held_back_and_those_not_drawn_are_said():
    result = plan(NAMES, [TRAIN, REPLAY], of=[0] * 50 + [1] * 50, validation=0.5, replay_share=0.2)
    trained = int((result.train < 50).sum())
    drawn = int((result.train >= 50).sum())

    assert result.validation.max() < 50
    assert drawn == round(trained / 4)
    assert result.dropped == {"not drawn for replay": 50 - drawn}
    assert result.replay_repeats == 1


def test_a_group_stays_together_and_its_side_goes_by_its_own_hash():
    groups = [f"customer {index % 20}" for index in range(100)]
    result = plan(NAMES, groups=groups, validation=0.3)

    assert {groups[row] for row in result.validation}.isdisjoint({groups[row] for row in result.train})
    assert result.validation.tolist() == np.flatnonzero(hold_back(digests(groups)[:, 0], 0.3)).tolist()


def test_equal_rows_of_two_groups_on_two_sides_are_a_leak_that_dedup_removes():
    # SHA-256 of the groups begins with 18ac for d and with ca97 for a: d is held back.
    asked = {"groups": ["a", "a", "d"], "validation": 0.3}

    found = plan(["same", "own", "same"], **asked)
    cleaned = plan(["same", "own", "same"], dedup="exact", **asked)

    assert (found.train.tolist(), found.validation.tolist()) == ([0, 1], [2])
    assert found.leaks.examples == (Pair(2, 0, 1.0),)
    assert (cleaned.train.tolist(), cleaned.validation.tolist()) == ([1], [2])
    assert cleaned.dropped == {"also in validation": 1}


def test_duplicates_and_leaks_are_counted_as_found_whether_they_are_left_out_or_not():
    contents, of = ["a", "b", "a", "c", "b", "c"], [0, 0, 0, 0, 1, 2]
    sources = [TRAIN, VALIDATION, EVALUATION]

    for dedup, dropped in (
        ("off", {}),
        ("exact", {"also in validation": 1, "also in evaluation": 1, "duplicate": 1}),
    ):
        result = plan(contents, sources, of=of, dedup=dedup)
        assert result.dropped == dropped
        assert (result.duplicates.count, result.leaks.count) == (1, 2)
        assert result.duplicates.examples == (Pair(2, 0, 1.0),)
        assert result.leaks.examples == (Pair(4, 1, 1.0), Pair(5, 3, 1.0))
        assert adds_up(result)


def test_duplicates_are_left_out_before_weights_count_rows():
    result = plan(["a", "a", "b", "b"], [SourceMix(role="train", weight=2)], dedup="exact")

    assert result.epoch.tolist() == [0, 0, 2, 2]


def test_replay_rows_count_as_training_rows_for_duplicates_and_leaks():
    result = plan(["a", "b", "a", "c", "d"], [TRAIN, VALIDATION, REPLAY], of=[0, 1, 2, 2, 2], dedup="exact")

    assert result.duplicates.examples == (Pair(2, 0, 1.0),)
    result = plan(["a", "b", "b", "c"], [TRAIN, VALIDATION, REPLAY], of=[0, 1, 2, 2], dedup="exact", replay_share=0.5)
    assert result.dropped == {"also in validation": 1}
    assert result.train.tolist() == [0, 3]


def test_near_duplicates_are_left_out_where_the_recipe_says_near():
    names = [*NAMES[:30], "a", "a'", "b"]
    sequences = make_sequences([near_tokens(name) for name in [*names, "b'"]])
    asked = {"sources": [TRAIN, VALIDATION], "of": [0] * 33 + [1], "sequences": sequences}

    found = plan([*names, "b'"], **asked)
    cleaned = plan([*names, "b'"], dedup="near", **asked)

    for result in (found, cleaned):
        assert result.near_duplicates.examples == (Pair(31, 30, 45 / 55),)
        assert result.near_leaks.examples == (Pair(33, 32, 45 / 55),)
    assert found.dropped == {}
    assert cleaned.dropped == {"also in validation": 1, "near-duplicate": 1}
    assert cleaned.train.tolist() == list(range(31))


@pytest.mark.parametrize(
    ("setting", "dedup", "rows", "searched"),
    [
        ("auto", "off", 40, True),
        ("auto", "off", 41, False),
        (True, "off", 41, True),
        (False, "off", 40, False),
        ("auto", "near", 41, True),
        (False, "near", 41, True),
        ("auto", "exact", 41, False),
    ],
)
def test_auto_looks_for_near_rows_up_to_a_limit(monkeypatch, setting, dedup, rows, searched):
    monkeypatch.setattr(plan_module, "MAX_ROWS_SEARCHED", 40)
    sequences = make_sequences([near_tokens(name) for name in NAMES[:rows]])
    of = [index % 3 for index in range(rows)]  # rows of all sides count

    result = plan(
        NAMES[:rows], [TRAIN, EVALUATION, REPLAY], of=of, sequences=sequences, near_duplicates=setting, dedup=dedup
    )

    assert (result.near_duplicates is not None) == (result.near_leaks is not None) == searched


def test_without_sequences_nobody_looks_and_near_is_a_mistake_in_the_call():
    assert plan(NAMES, near_duplicates=True).near_duplicates is None
    with pytest.raises(ValueError, match="needs the rows' sequences"):
        plan(NAMES, dedup="near")


def test_no_rows_at_all_are_no_fault():
    result = plan([], validation=0.5, dedup="near", max_length=5, sequences=make_sequences([]))

    assert (result.rows_in, len(result.train), len(result.epoch), result.dropped) == (0, 0, 0, {})
