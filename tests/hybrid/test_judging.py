"""A router is worth its name where it beats the best single member on questions that it did not learn from."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ftkit.hybrid import training
from ftkit.hybrid.judging import (
    best_member,
    cross_validated,
    folds_of,
    standing_of,
    winners,
)
from ftkit.hybrid.logistic import fit_logistic
from ftkit.rag.blame import Evidence
from ftkit.rag.measured import Measured
from ftkit.rag.outcomes import outcomes_of
from ftkit.rag.questions import AskedQuestion, document_groups
from ftkit.recipe.hybrid import RouterSection

QUESTIONS, WIDTH = 160, 12


def answered(said, *, nll=1.0, prompt_tokens=10):
    evidence = Evidence(indexed=True, given=True, in_passages=True)
    return Measured(
        said=said, confidence=None, citations=(), ranks=(None,), evidence=evidence, nll=nll, nll_tokens=2,
        retrieve_s=0.0, generate_s=None, prompt_tokens=prompt_tokens,
    )  # fmt: skip


def mixed_load(seed=0):
    """Features that tell two topics apart with noise; member a is right on the one, b on the other."""
    draw = np.random.default_rng(seed)
    topic = draw.integers(0, 2, QUESTIONS)
    features = torch.from_numpy(draw.normal(size=(QUESTIONS, WIDTH)))
    features[:, 0] += torch.from_numpy(3.0 * topic)
    asked = [
        AskedQuestion(question=f"q{number}", answers=("right",), documents=(f"d{number // 2}",))
        for number in range(QUESTIONS)
    ]
    outcomes = {
        name: outcomes_of(
            [(one, answered("right" if topic[at] == wins else "wrong")) for at, one in enumerate(asked)], None
        )
        for wins, name in enumerate(("a", "b"))
    }
    return features, outcomes, document_groups(asked)


def standing(features, outcomes, labels, groups):
    chosen = cross_validated(features, labels, groups, classes=2, folds=5, l2=0.1)
    return standing_of(outcomes, [("a", "b")[number] for number in chosen], best_member(outcomes), groups)


@pytest.mark.parametrize("seed", range(3))
def test_on_a_mixed_load_it_beats_the_best_single_member(seed):
    features, outcomes, groups = mixed_load(seed)

    found = standing(features, outcomes, winners(outcomes), groups)

    assert found.beats_best
    assert found.routed > 0.85 > found.best and found.oracle == 1.0
    assert found.accuracy == pytest.approx(found.routed)  # one member is right of each question, and it alone


@pytest.mark.parametrize("seed", range(3))
def test_with_shuffled_labels_it_does_not(seed):
    features, outcomes, groups = mixed_load(seed)
    # Half of each topic, as a plain shuffle may agree with the topics by chance: then there is something to learn.
    labels, draw = winners(outcomes), random.Random(seed)
    for topic in (0, 1):
        places = [at for at, won in enumerate(winners(outcomes)) if won == topic]
        for at in draw.sample(places, len(places) // 2):
            labels[at] = 1 - topic

    found = standing(features, outcomes, labels, groups)

    assert not found.beats_best
    assert found.routed < 0.65


def test_where_questions_say_nothing_of_who_wins_a_router_is_hardly_ever_promoted():
    promoted = 0
    for seed in range(20):
        features, outcomes, groups = mixed_load(seed)
        mixed = features[torch.from_numpy(np.random.default_rng(seed).permutation(QUESTIONS))]
        promoted += standing(mixed, outcomes, winners(outcomes), groups).beats_best

    assert promoted <= 2  # one in forty is expected


def test_no_document_is_in_two_folds_and_folds_are_of_one_size():
    groups = [f"d{number // 3}" for number in range(60)]

    fold = folds_of(groups, 5)

    assert all(len({fold[at] for at in range(60) if groups[at] == name}) == 1 for name in groups)
    assert sorted(fold.count(number) for number in range(5)) == [12] * 5
    assert folds_of(["one", "two", "two"], 5) == folds_of(["one", "two", "two"], 2)


def test_the_same_question_of_two_documents_is_never_judged_by_who_learnt_from_it(monkeypatch):
    said = [("Who?", "a"), ("Where?", "b"), ("who ?", "c"), (" WHO?", "d")]
    asked = [AskedQuestion(question=text, answers=("x",), documents=(name,), id=name) for text, name in said]
    outcomes = {name: outcomes_of([(one, answered("x")) for one in asked], None) for name in ("one", "two")}
    seen = []
    features = torch.eye(4, dtype=torch.float64)
    monkeypatch.setattr(training, "question_features", lambda *_: features)
    monkeypatch.setattr(training, "cross_validated", lambda _, __, groups, **___: seen.append(groups) or [0] * 4)

    encoder = SimpleNamespace(found=SimpleNamespace(sha256="0"))
    _, facts = training.learn_router(outcomes, asked, encoder, RouterSection(encoder="any", folds=5))

    (groups,) = seen
    assert groups[0] == groups[3] and len(set(groups)) == 3 == facts["cross_validation"]["folds"]


def test_a_question_is_won_by_f1_then_by_the_likelihood_of_the_answer_then_by_the_shorter_prompt():
    asked = AskedQuestion(question="Who?", answers=("ada berg",), documents=("d",))

    def won(first, second):
        return winners({name: outcomes_of([(asked, one)], None) for name, one in (("a", first), ("b", second))})

    assert won(answered("kim", nll=0.1), answered("ada", nll=9.0)) == [1]
    assert won(answered("kim", nll=2.0), answered("lee", nll=1.0)) == [1]
    assert won(answered("kim", nll=None), answered("lee", nll=5.0)) == [1]
    assert won(answered("kim", prompt_tokens=90), answered("lee", prompt_tokens=20)) == [1]
    assert won(answered("kim"), answered("lee")) == [0]


def test_the_fit_is_where_the_gradient_is_zero():
    features, outcomes, _ = mixed_load()
    labels, l2 = winners(outcomes), 0.05
    model = fit_logistic(features, labels, classes=2, l2=l2)

    standard = (features - model.mean) / model.scale
    apart = model.probabilities(features) - torch.eye(2, dtype=torch.float64)[labels]
    gradient = apart.T @ standard / len(labels) + l2 * model.weights

    assert gradient.abs().max() < 1e-6
    assert apart.mean(dim=0).abs().max() < 1e-6  # the bias is free


def test_it_is_the_same_to_the_bit_each_time_and_scale_does_not_matter():
    features, outcomes, _ = mixed_load()
    labels = winners(outcomes)
    one, two = (fit_logistic(features, labels, classes=2, l2=0.1) for _ in range(2))
    scaled = fit_logistic(features * 1000 + 5, labels, classes=2, l2=0.1)

    assert torch.equal(one.weights, two.weights) and torch.equal(one.bias, two.bias)
    assert torch.allclose(one.probabilities(features), scaled.probabilities(features * 1000 + 5), atol=1e-6)


def test_a_class_without_a_question_and_a_feature_that_never_varies_do_no_harm():
    features, outcomes, _ = mixed_load()
    features[:, 3] = 7.0
    model = fit_logistic(features, winners(outcomes), classes=3, l2=0.1)
    found = model.probabilities(features)

    assert torch.isfinite(found).all() and (found[:, 2] == 0).all()
    assert set(fit_logistic(features, [1] * QUESTIONS, classes=3, l2=0.1).classes(features)) == {1}
