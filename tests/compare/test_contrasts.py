"""Pairs of systems: verdicts that can be reached, and those that must not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ftkit.compare.contrasts import Contrast, contrasts_of, holm, mcnemar
from ftkit.compare.document import between, signed
from ftkit.compare.figures import LATENCIES, MEASURES, Standing
from ftkit.rag.blame import BLAMES
from ftkit.rag.intervals import Ratio, intervals_of
from ftkit.rag.questions import AskedQuestion
from ftkit.recipe.compare import ContrastSection


def standing(name, scores, *, nll=None, documents=None, seeds=1):
    """A system with these exact matches, and perhaps losses, question by question."""
    scores = np.asarray(scores, dtype=float)
    losses = scores if nll is None else np.asarray(nll, dtype=float)
    documents = documents or [f"{number}.txt" for number in range(len(scores))]
    ones = np.ones(len(scores))
    figures = {key: Ratio(numerators=scores, denominators=ones) for key in MEASURES}
    figures |= {f"blame_percent.{key}": Ratio(numerators=scores, denominators=ones) for key in BLAMES}
    figures["nll"] = Ratio(numerators=losses, denominators=ones)
    figures |= dict.fromkeys(LATENCIES, figures["nll"])
    outcomes = [
        SimpleNamespace(
            question=AskedQuestion(question=f"q{number}", answers=("a",), documents=(document,)),
            measured=SimpleNamespace(citations=("one",)),
            exact_match=score,
        )
        for number, (score, document) in enumerate(zip(scores, documents, strict=True))
    ]
    evaluation = SimpleNamespace(figures=figures, outcomes=outcomes, values=dict.fromkeys(figures, 0.0), settings={})
    return Standing(name=name, evaluations=(evaluation,) * seeds)


def verdict(a, b, metric):
    [found] = contrasts_of({"a": a, "b": b}, [ContrastSection(a="a", b="b", metric=metric)])
    return found


def test_each_verdict_can_be_reached_and_the_lower_loss_wins():
    rng = np.random.default_rng(0)
    hard = rng.normal(3.0, 1.0, 60)  # questions differ far more than systems do
    better = standing("a", np.ones(60), nll=hard - 0.2 + rng.normal(0, 0.1, 60))
    worse = standing("b", np.ones(60), nll=hard)
    assert verdict(better, worse, "nll").verdict == "a is better"
    assert verdict(worse, better, "nll").verdict == "b is better"
    alike = standing("b", np.ones(60), nll=hard + rng.normal(0, 0.1, 60))
    assert verdict(worse, alike, "nll").verdict == "undetermined"


def test_pairing_sees_what_two_separate_intervals_hide():
    rng = np.random.default_rng(1)
    hard = rng.normal(3.0, 1.0, 60)
    a, b = standing("a", np.ones(60), nll=hard - 0.2), standing("b", np.ones(60), nll=hard)
    assert a.intervals["nll"][1] > b.intervals["nll"][0]  # the intervals overlap
    found = verdict(a, b, "nll")
    assert found.high < 0 and found.difference == pytest.approx(-0.2)


def test_questions_about_one_document_count_as_little_more_than_one():
    right = [1.0] * 40 + [0.0] * 20
    none = [0.0] * 60
    apart = verdict(standing("a", right), standing("b", none), "f1")
    together = verdict(
        standing("a", right, documents=["one.txt"] * 40 + [f"{number}" for number in range(20)]),
        standing("b", none, documents=["one.txt"] * 40 + [f"{number}" for number in range(20)]),
        "f1",
    )
    assert apart.verdict == "a is better"
    assert together.verdict == "undetermined"


def test_mcnemar_is_the_sign_test_on_what_differs():
    assert mcnemar([True] * 6 + [False], [False] * 6 + [True]) == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([True, False], [False, True]) == 1.0


def test_exact_match_of_one_seed_is_tested_by_mcnemar():
    found = verdict(standing("a", [1.0] * 20), standing("b", [0.0] * 20), "exact_match")
    assert (found.test, found.p) == ("mcnemar", pytest.approx(2 / 2**20))


def test_holm_multiplies_the_smallest_most_and_never_falls():
    def one(p):
        return Contrast(
            a="a", b="b", metric="nll", difference=1.0, low=0.5, high=1.5, p=p, p_holm=None, test="bootstrap"
        )

    found = [each.p_holm for each in holm([one(0.04), one(0.01), one(0.03), one(None)])]
    assert found == [pytest.approx(0.06), pytest.approx(0.03), pytest.approx(0.06), None]


def test_a_difference_that_one_test_alone_would_call_real_is_not_called_so_among_many():
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, 40)
    systems = {"base": standing("base", np.ones(40), nll=base)}
    asked = []
    for number in range(20):  # none of them differs but by chance
        systems[f"s{number}"] = standing(f"s{number}", np.ones(40), nll=base + rng.normal(0, 1, 40))
        asked.append(ContrastSection(a=f"s{number}", b="base", metric="nll"))
    found = contrasts_of(systems, asked)
    assert min(one.p for one in found) < 0.05
    assert {one.verdict for one in found} == {"undetermined"}


def test_a_figure_that_one_system_lacks_is_no_contrast():
    blind = standing("b", [1.0] * 10)
    for outcome in blind.evaluations[0].outcomes:
        outcome.measured.citations = ()
    assert "recall_at_5" not in blind.figures
    found = verdict(standing("a", [1.0] * 10), blind, "recall_at_5")
    assert (found.difference, found.p, found.verdict) == (None, None, "undetermined")


def test_seeds_are_averaged_question_by_question():
    two = Standing(
        name="a", evaluations=(*standing("a", [1.0, 1.0]).evaluations, *standing("a", [0.0, 1.0]).evaluations)
    )
    assert two.values["exact_match"] == 0.75
    assert len(two.to_dict()["exact_match"]["seeds"]) == 2


def test_intervals_are_of_documents_drawn_anew():
    ratio = Ratio(numerators=np.array([1.0, 0.0] * 20), denominators=np.ones(40))
    low, high = intervals_of({"x": ratio}, [str(number) for number in range(40)])["x"]
    assert 0.3 < low < 0.4 and 0.6 < high < 0.7


def test_large_differences_are_written_with_a_power_of_ten():
    assert (signed(None), signed(-0.25), signed(-2.987e10)) == ("–", "-0.250", "-2.99e+10")
    assert between({"low": -3.08e10, "high": -2.88e10}) == "-3.08e+10 to -2.88e+10"
    assert between({"low": None, "high": None}) == "–"
