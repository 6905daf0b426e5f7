"""What is remembered is never what chooses a weight or measures it; no model is needed to see to that."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ftkit.errors import DataError
from ftkit.hybrid.course import hybrid_questions
from ftkit.hybrid.remembering import remembered_of
from ftkit.rag.questions import AskedQuestion, split_questions
from ftkit.recipe import HybridRecipe

PLAIN = SimpleNamespace(passages=0)  # asked without passages, and memory.texts is empty: it is not asked at all


def recipe(train, *, questions=True, validation=None):
    return HybridRecipe.model_validate(
        {
            "recipe": "hybrid",
            "kind": "memory",
            "members": {"plain": {"path": "model"}},
            "data": {"train": str(train), "validation": validation},
            "memory": {"texts": [], "questions": questions},
            "output": "run",
        }
    )


def write_rows(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def row(question, document, number):
    return {"id": str(number), "question": question, "answers": ["x"], "document": document}


def about(*documents):
    return [row(f"What is {name}?", name, at) for at, name in enumerate(documents)]


def remembered(values):
    train, held = hybrid_questions(values)
    return remembered_of(values, "plain", PLAIN, train, held), train, held


def words(questions):
    return {" ".join(one.question.lower().split()) for one in questions}


@pytest.mark.parametrize("other", ["file", "fraction"])
def test_a_file_to_remember_holds_no_question_that_is_held_back(tmp_path, other):
    names = [f"d{number}" for number in range(12)]
    train = write_rows(tmp_path / "train.jsonl", about(*names))
    validation = 0.3 if other == "fraction" else str(write_rows(tmp_path / "held.jsonl", about("e", "f")))
    _, held = hybrid_questions(recipe(train, validation=validation))
    asked = write_rows(tmp_path / "asked.jsonl", [row(f"  {held[0].question.upper()}", "z", 1), *about("y")])

    with pytest.raises(DataError, match=r"1 of its questions are held back too \(data\.validation\)"):
        remembered(recipe(train, questions=str(asked), validation=validation))
    found, *_ = remembered(recipe(train, questions=str(asked)) if other == "file" else recipe(train))
    assert found.pairs


def test_a_file_with_questions_of_both_sides_is_told_of_both(tmp_path):
    train, held = write_rows(tmp_path / "train.jsonl", about("a")), write_rows(tmp_path / "held.jsonl", about("b"))
    asked = write_rows(tmp_path / "asked.jsonl", about("b", "a"))

    with pytest.raises(DataError) as caught:
        remembered(recipe(train, questions=str(asked), validation=str(held)))
    assert [one.what.split(",")[0] for one in caught.value.problems] == [
        "1 of its questions are in data.train too",
        "1 of its questions are held back too (data.validation)",
    ]


def test_no_question_chooses_in_the_words_of_one_that_is_remembered(tmp_path):
    names = [f"d{number}" for number in range(40)]
    said = [
        row(f"what  is D{at % 20}?" if at >= 20 else f"What is d{at}?", name, at) for at, name in enumerate(names)
    ]
    train = write_rows(tmp_path / "train.jsonl", said)
    drawn, half = split_questions([AskedQuestion(question=one["question"], answers=("x",),
                                                 documents=(one["document"],)) for one in said], 0.5)  # fmt: skip
    shared = words(drawn) & words(half)

    found, *_ = remembered(recipe(train))

    assert shared, "else nothing is shown"
    assert len(found.pairs) == len(half)
    assert words(found.dev) == words(drawn) - shared and found.dev


def test_no_question_is_remembered_in_the_words_of_one_that_is_held_back(tmp_path):
    names = [f"d{number}" for number in range(40)]
    train = write_rows(tmp_path / "train.jsonl", about(*names))
    first, *_ = remembered(recipe(train))
    told = first.pairs[0].question
    held = write_rows(tmp_path / "held.jsonl", [row(told.upper(), "elsewhere", 1)])

    found, *_ = remembered(recipe(train, validation=str(held)))

    assert words(found.pairs) == words(first.pairs) - {told.lower()}
    assert found.dev == first.dev


def test_where_every_question_of_the_choosing_half_is_remembered_too_it_is_refused(tmp_path):
    names = [f"d{number}" for number in range(8)]
    train = write_rows(tmp_path / "train.jsonl", [row("What is it?", name, at) for at, name in enumerate(names)])

    with pytest.raises(DataError, match="no answer is left to choose the weight by"):
        remembered(recipe(train))


def test_a_router_needs_two_groups_that_share_no_question(tmp_path):
    rows = [row("What is it?", "a", 1), row("what is it?", "b", 2), row("Who?", "b", 3)]
    train = write_rows(tmp_path / "train.jsonl", rows)
    values = HybridRecipe.model_validate(
        {
            "recipe": "hybrid",
            "members": {"one": {"path": "model"}, "two": {"path": "other"}},
            "data": {"train": str(train)},
            "router": {"encoder": "encoder"},
            "output": "run",
        }
    )

    with pytest.raises(DataError, match="which share no question"):
        hybrid_questions(values)
    write_rows(train, [*rows, row("When?", "c", 4)])
    assert len(hybrid_questions(values)[0]) == 4
