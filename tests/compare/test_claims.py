"""Planted systems: every verdict on a claim can be reached, and a rung that is worse is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from ftkit.compare.claims import judge
from ftkit.compare.page_parts import CLAIM_HEAD, claim_rows
from ftkit.compare.sheet import Sheet
from ftkit.compare.staged import climb
from ftkit.rag.intervals import Ratio
from ftkit.recipe import ClaimSection, StagedSection
from tests.compare.test_contrasts import standing

HARD = np.random.default_rng(0).normal(3.0, 1.0, 60)


def losses(name, gain, *, counted=None):
    """A system whose loss on each question is lower by so much, about."""
    noise = np.random.default_rng(sum(name.encode())).normal(0.0, 0.1, 60)
    noise -= noise.mean()
    found = standing(name, np.ones(60), nll=HARD - gain + noise)
    return found if counted is None else replace(found, counted=counted)


def verdict(a, b, **changes):
    values = {"id": "one", "text": "one", "a": "a", "b": "b", "metric": "nll"} | changes
    (found,) = judge([ClaimSection(**values)], {"a": a, "b": b})
    return found.verdict


def test_each_verdict_on_a_difference_can_be_reached():
    good, bad, alike = losses("a", 0.3), losses("b", 0.0), losses("c", 0.0)
    assert verdict(good, bad) == "supported"
    assert verdict(bad, good) == "refuted"
    assert verdict(bad, alike) == "undetermined"
    (gone,) = judge([ClaimSection(id="one", text="one", a="a", b="b")], {"a": good})
    assert gone.verdict == "not measured" and gone.contrast is None


def test_a_margin_asks_for_more_than_a_difference():
    good, bad = losses("a", 0.3), losses("b", 0.0)
    assert verdict(good, bad, margin=0.1) == "supported"
    assert verdict(good, bad, margin=0.3) == "undetermined"
    assert verdict(good, bad, margin=0.8) == "refuted"


def test_each_verdict_on_equality_can_be_reached():
    good, bad, alike = losses("a", 0.3), losses("b", 0.0), losses("c", 0.0)
    assert verdict(bad, alike, kind="equal", margin=0.1) == "supported"
    assert verdict(good, bad, kind="equal", margin=0.1) == "refuted"
    assert verdict(good, bad, kind="equal", margin=0.3) == "undetermined"


def counted_by_few(name, values, counting):
    """A system with a figure that only the first questions count in."""
    found = standing(name, np.ones(60), nll=HARD)
    where = np.arange(60) < counting
    ratio = Ratio(numerators=np.asarray(values) * where, denominators=where.astype(float))
    units = tuple(f"q{number}" for number in range(60))
    return replace(found, sheets={"rare": (Sheet(units=units, clusters=units, figures={"nll_rare": ratio}),)})


@pytest.mark.parametrize(("counting", "expected"), [(1, "undetermined"), (3, "undetermined"), (12, "supported")])
def test_a_figure_of_few_questions_settles_nothing_however_clear_it_looks(counting, expected):
    good, bad = counted_by_few("a", np.zeros(60), counting), counted_by_few("b", np.ones(60), counting)
    assert verdict(good, bad, metric="nll_rare") == expected
    assert (good.intervals["nll_rare"] is None) == (counting == 1)


def test_figures_over_other_units_are_not_paired():
    good, bad = counted_by_few("a", np.zeros(60), 12), counted_by_few("b", np.ones(60), 12)
    (sheet,) = bad.sheets["rare"]
    other = replace(sheet, units=tuple(f"other {unit}" for unit in sheet.units))
    assert verdict(good, replace(bad, sheets={"rare": (other,)}), metric="nll_rare") == "not measured"


def test_what_is_not_measured_yet_counts_in_the_correction():
    rng = np.random.default_rng(3)
    slight, base = (
        standing("a", np.ones(60), nll=HARD - 0.035 + rng.normal(0, 0.1, 60)),
        standing("b", np.ones(60), nll=HARD),
    )
    claims = [ClaimSection(id="one", text="one", a="a", b="b")]
    claims += [ClaimSection(id=f"x{number}", text="later", a=f"x{number}", b="b") for number in range(30)]
    first, *_ = judge(claims, {"a": slight, "b": base})
    assert first.verdict == "undetermined" and verdict(slight, base) == "supported"


def test_what_is_counted_needs_no_chance():
    cheap, dear = (
        losses("a", 0.0, counted={"training_flops": 0.0}),
        losses("b", 0.0, counted={"training_flops": 9e12}),
    )
    assert verdict(cheap, dear, metric="training_flops") == "supported"
    assert verdict(dear, cheap, metric="training_flops") == "refuted"
    assert verdict(cheap, cheap, metric="training_flops") == "undetermined"
    assert verdict(cheap, losses("c", 0.0), metric="training_flops") == "not measured"


def test_a_claim_among_many_needs_more_than_one_alone():
    rng = np.random.default_rng(3)
    slight = standing("a", np.ones(60), nll=HARD - 0.035 + rng.normal(0, 0.1, 60))
    base = standing("b", np.ones(60), nll=HARD)
    assert verdict(slight, base) == "supported"
    others = {f"x{number}": losses(f"x{number}", 0.0) for number in range(30)}
    claims = [ClaimSection(id="one", text="one", a="a", b="b")]
    claims += [ClaimSection(id=name, text=name, a=name, b="b") for name in others]
    found = {one.claim.id: one.verdict for one in judge(claims, {"a": slight, "b": base} | others)}
    assert found["one"] == "undetermined"
    assert set(found.values()) == {"undetermined"}  # of thirty that are true of nothing none is supported by luck


def test_a_worse_rung_and_one_that_is_no_better_are_left_out():
    standings = {
        "first": losses("first", 0.0), "worse": losses("worse", -0.4), "better": losses("better", 0.3),
        "same": losses("same", 0.3), "best": losses("best", 0.8),
    }  # fmt: skip
    section = StagedSection(rungs=("first", "worse", "better", "same", "best"), metric="nll")
    stands, steps = climb(section, standings)
    assert stands == "best"
    assert [(one.rung, one.against, one.accepted) for one in steps] == [
        ("worse", "first", False), ("better", "first", True), ("same", "better", False), ("best", "better", True),
    ]  # fmt: skip
    del standings["best"]
    stands, steps = climb(section, standings)
    assert stands == "better" and steps[-1].contrast is None


def test_rows_of_claims_say_who_is_held_against_whom():
    found = judge(
        [ClaimSection(id="one", text="A wins", a="a", b="b")], {"a": losses("a", 0.3), "b": losses("b", 0.0)}
    )
    (row,) = claim_rows({"claims": [one.to_dict() for one in found]})
    assert row[5] == str(found[0].contrast.documents) and found[0].contrast.documents > 1
    assert len(row) == len(CLAIM_HEAD) and row[:3] == ["A wins", "supported", "a – b, nll"]
    assert row[3].startswith("-0.")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"metric": "accuracy"}, "no figure is called accuracy"),
        ({"kind": "equal"}, "equal needs the most"),
        ({"id": "Not Fit"}, "pattern"),
        ({"metric": "updated_0"}, "no figure is called updated_0"),
    ],
)
def test_a_fault_in_a_claim_is_named(values, words):
    with pytest.raises(ValidationError, match=words):
        ClaimSection(**({"id": "one", "text": "t", "a": "a", "b": "b"} | values))
