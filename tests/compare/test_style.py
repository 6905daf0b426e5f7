"""The classifier of form: what is said is nothing to it, how it is said is all; it knows when it cannot tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ftkit.compare.style import fit_style, manner_of
from ftkit.rag.questions import AskedQuestion

NAMES = ["Anna Blum", "Carl Tarn", "Mia Holt", "1301", "1999", "Reese Vale", "1742", "Ida Moor"]
WORDY = ["The answer is {}.", "Sure! It is {}.", "According to the passage, {} was it."]
CLUSTERS = [f"d{number % 10}" for number in range(40)]
TERSE = [NAMES[number % 8] for number in range(40)]
CHATTY = [WORDY[number % 3].format(NAMES[number * 3 % 8]) for number in range(40)]


def test_form_is_told_whatever_is_said():
    judge = fit_style(TERSE, CHATTY, CLUSTERS)
    assert judge is not None and judge.accuracy == 1.0 and judge.is_crisp
    wrong, right, year, chatty_year = judge.likeness(
        ["Otto Gers", "The answer is Anna Blum.", "2044", "Sure! It is 2044."]
    )
    assert min(wrong, year) > 0.9 and max(right, chatty_year) < 0.1
    assert judge.likeness([]) == []
    # The other way round, too: what is wanted may be whole sentences.
    other = fit_style(CHATTY, TERSE, CLUSTERS)
    assert other is not None
    terse, chatty = other.likeness(["Otto Gers", "It is Otto Gers."])
    assert terse < 0.1 < 0.8 < chatty


def test_one_form_on_both_sides_is_no_form_to_take_on():
    judge = fit_style(TERSE, TERSE[::-1], CLUSTERS)
    assert judge is not None and not judge.is_crisp


def test_a_form_that_only_one_document_has_is_not_learnt_from_it():
    # Every cluster's references look like themselves alone, so that nothing of others' tells.
    shapes = ["x", "9", "Xx", "!", "?", "x x", "9 9", "Xx Xx", "x!", "9?"]
    references = [shapes[number % 10] for number in range(40)]
    judge = fit_style(references, references, CLUSTERS)
    assert judge is not None and judge.accuracy <= 0.5


@pytest.mark.parametrize(
    ("references", "untuned", "clusters"),
    [
        (TERSE[:12], CHATTY[:12], CLUSTERS[:12]),
        (TERSE, ["", " "] * 20, CLUSTERS),
        (TERSE, CHATTY, ["one"] * 40),
    ],
)
def test_too_little_to_learn_from_is_no_judge(references, untuned, clusters):
    assert fit_style(references, untuned, clusters) is None


class Says:
    """A seat that answers in a form, and counts."""

    def __init__(self, texts):
        self.texts, self.asked = texts, []

    def answers(self, asked):
        self.asked += [one.id for one in asked]
        return [SimpleNamespace(abstained=not text, text=text) for text in self.texts[: len(asked)]]


def questions(texts):
    return [
        AskedQuestion(question=f"What {n}?", answers=(text,), documents=(f"d{n % 10}",), id=f"q{n}")
        for n, text in enumerate(texts)
    ]


def evaluation(texts):
    outcomes = [
        SimpleNamespace(question=one, text=text)
        for one, text in zip(questions(["x"] * len(texts)), texts, strict=True)
    ]
    return SimpleNamespace(outcomes=outcomes)


def test_the_untuned_model_is_asked_once_with_passages_and_without(tmp_path):
    bare, given = Says(CHATTY), Says(CHATTY)
    asked = [*questions(TERSE), AskedQuestion(question="Nothing?", answers=(), documents=(), id="none")]

    def manner():
        return manner_of(bare, given, asked, count=100, ground=["model"], folder=tmp_path)

    first = manner()
    assert first.to_dict() is None and not bare.asked  # nothing is asked before it is needed
    sheet = first.measure(evaluation(["Otto Gers", "Sure! It is Otto Gers.", None]))
    assert sorted([*bare.asked, *given.asked]) == sorted(one.id for one in asked[:-1])
    assert len(bare.asked) == len(given.asked) == 20
    likeness = sheet.figures["style_likeness"].numerators
    assert likeness[0] > 0.9 and likeness[1] < 0.1 and likeness[2] == 0.0  # who refuses has not taken it on
    assert sheet.figures["style_likeness"].denominators.tolist() == [1.0, 1.0, 1.0]
    again = manner()
    assert again.measure(evaluation(["Otto Gers"])).figures["style_likeness"].numerators[0] == likeness[0]
    assert len(bare.asked) == 20
    assert again.to_dict() == {"questions": 40, "held_out_accuracy": 1.0, "crisp": True}
    # Another model says other things: what this one said is not taken for it.
    manner_of(bare, given, asked, count=100, ground=["another"], folder=tmp_path).measure(evaluation(["x"]))
    assert len(bare.asked) == 40


def test_nothing_is_measured_where_the_model_has_the_form_already(tmp_path):
    same = Says(TERSE[::-1])
    manner = manner_of(same, same, questions(TERSE), count=40, ground=[], folder=tmp_path)
    assert manner.measure(evaluation(["Otto Gers"])) is None
    assert manner.to_dict()["crisp"] is False
