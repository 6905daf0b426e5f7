"""Weights chosen by planted halves: whichever knows the answers wins, and both where each knows a part."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch

from ftkit.errors import DataError
from ftkit.hybrid import mixture
from ftkit.hybrid.datastore import build_datastore
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import Pair
from ftkit.hybrid.weights import choose_weight, weigh
from ftkit.rag.questions import AskedQuestion
from tests.hybrid.targets import random_target


@dataclass
class Planted:
    """Halves that give these probabilities to an answer's tokens; the second's by temperature."""

    one: list[float]
    two: dict[float, list[float]]

    @property
    def first(self):
        return torch.tensor(self.one, dtype=torch.float64).log()

    def second(self, temperature):
        return torch.tensor(self.two[temperature], dtype=torch.float64).log()


def planted(one, two):
    return [Planted(one, {1.0: two})]


@pytest.mark.parametrize(
    ("one", "two", "weight"),
    [
        ([0.9, 0.8], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.9, 0.8], 1.0),
        ([0.9, 0.1], [0.1, 0.9], 0.5),  # -log(.9 - .8 w) - log(.1 + .8 w) is least in the middle
        ([0.5, 0.5], [0.5, 0.5], 0.0),  # as good: the half without a search
        ([0.2, 0.9], [0.0, 0.0], 0.0),
        ([0.0, 0.9], [0.9, 0.0], 0.5),  # each rules out what the other knows
    ],
)
def test_the_weight_of_the_half_that_knows_wins(one, two, weight):
    assert choose_weight(planted(one, two)).weight == weight


def test_every_token_counts_the_same_however_long_its_answer():
    parts = planted([0.9], [0.1]) + planted([0.2] * 9, [0.8] * 9)
    choice = choose_weight(parts, weights=[])

    nll = -(math.log(0.1) + 9 * math.log(0.8)) / 10
    assert (choice.weight, choice.nll, choice.tokens, choice.questions) == (1.0, pytest.approx(nll), 10, 2)
    assert [(point.weight, point.nll) for point in choice.curve] == [
        (0.0, pytest.approx(-(math.log(0.9) + 9 * math.log(0.2)) / 10)), (1.0, pytest.approx(nll)),
    ]  # fmt: skip


def test_a_temperature_is_chosen_with_the_weight():
    parts = [Planted([0.5, 0.5], {1.0: [0.4, 0.4], 10.0: [0.9, 0.8]})]

    choice = choose_weight(parts, weights=[0.5], temperatures=[1.0, 10.0])

    assert (choice.weight, choice.temperature) == (1.0, 10.0)
    assert [(point.temperature, point.weight) for point in choice.curve] == [
        (1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (10.0, 0.5), (10.0, 1.0),
    ]  # fmt: skip


def test_an_answer_that_is_ruled_out_is_infinitely_unlikely_and_null_as_json():
    choice = choose_weight(planted([0.5], [0.0]), weights=[0.5])

    assert [point.nll for point in choice.curve] == pytest.approx([math.log(2), math.log(4), math.inf])
    assert json.loads(json.dumps(choice.to_dict(), allow_nan=False))["curve"][2]["nll"] is None


def test_there_must_be_an_answer():
    with pytest.raises(DataError, match="no answer to choose a weight by"):
        choose_weight([])


QUESTIONS = [
    AskedQuestion(question="Who is mayor of Oum?", answers=("Ada Berg",), documents=("oum.md",)),
    AskedQuestion(question="What does Lir make?", answers=("paper", "sheets"), documents=("lir.md",)),
    AskedQuestion(question="Who is nobody?", answers=()),
]


def test_the_curve_of_a_mixture_is_what_it_does_at_each_weight_and_both_halves_read_once(
    parts, tuned, reader, monkeypatch
):
    system = MixtureSystem(**parts, generator=reader, tuned=tuned, weight=0.5)
    passes = []
    forced = mixture.forced
    monkeypatch.setattr(mixture, "forced", lambda *rest, **named: passes.append(rest) or forced(*rest, **named))

    choice = weigh(system, QUESTIONS, weights=[0.25], temperatures=[1.0, 0.1])

    assert len(passes) == 2
    assert (choice.questions, choice.left_out) == (2, 1)
    assert len(choice.curve) == 1 + 2 * 2
    for point in choice.curve:
        at = replace(system, weight=point.weight, temperature=point.temperature)
        losses = [at.answer_nll(one.question, at.retrieve(one.question), one.answers[0]) for one in QUESTIONS[:2]]
        nll = sum(loss.mean * loss.tokens for loss in losses) / sum(loss.tokens for loss in losses)
        assert point.nll == pytest.approx(nll, abs=1e-5)


def test_a_memory_of_the_answers_wins_over_a_model_that_does_not_know_them(parts, reader, tmp_path):
    found = [NearestSystem(**parts, generator=reader, datastore=store, weight=0.5, neighbours=4) for store in (
        build_datastore(reader, [Pair(question=one.question, answer=one.answers[0]) for one in QUESTIONS[:2]],
                        tmp_path / "right"),
        build_datastore(reader, ["0123456789770123"], tmp_path / "wrong"),
    )]  # fmt: skip

    class Nothing:
        name = "none"

        def __call__(self, question, count):
            return []

    right, wrong = (weigh(one, QUESTIONS, finder=Nothing(), temperatures=[0.1, 10.0]) for one in found)

    assert (right.weight, right.temperature, wrong.weight) == (1.0, 0.1, 0.0)
    assert right.nll < wrong.nll
    for point in right.curve:
        at = replace(found[0], weight=point.weight, temperature=point.temperature)
        losses = [at.answer_nll(one.question, [], one.answers[0]) for one in QUESTIONS[:2]]
        nll = sum(loss.mean * loss.tokens for loss in losses) / sum(loss.tokens for loss in losses)
        assert point.nll == pytest.approx(nll, abs=1e-5)


def test_an_answer_that_there_is_no_room_for_is_left_out_and_counted(parts):
    target = random_target(7, max_position_embeddings=150)
    system = MixtureSystem(**parts, generator=target, tuned=target, weight=0.5)
    long = AskedQuestion(question="Who?", answers=("Ada " * 100,))

    assert weigh(system, [*QUESTIONS, long]).left_out == 2
