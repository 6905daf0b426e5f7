"""Question sets: what is read, and that every fault is named with its line in one pass."""

from __future__ import annotations

import json

import pytest

from ftkit.errors import DataError
from ftkit.rag.questions import AskedQuestion, read_questions
from ftkit.rag.world import closed_world


def write(tmp_path, *rows):
    path = tmp_path / "q.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_questions_are_read_with_their_documents_and_places(tmp_path):
    path = write(
        tmp_path,
        {"question": "Who?", "answers": ["Ada", "Ada Berg"], "document": "a.md", "split": "dev"},
        "",
        {"question": "When?", "answers": [], "id": 7, "document": None},
        {"question": "Where?", "answers": ["Oum"], "documents": ["a.md", "b.md"], "document": "b.md", "id": "w"},
    )

    assert read_questions(path) == [
        AskedQuestion(
            question="Who?", answers=("Ada", "Ada Berg"), documents=("a.md",), id="Who?", place=f"{path}:1"
        ),
        AskedQuestion(question="When?", answers=(), id="7", place=f"{path}:3"),
        AskedQuestion(
            question="Where?", answers=("Oum",), documents=("a.md", "b.md"), id="w", place=f"{path}:4"
        ),
    ]  # fmt: skip


def test_every_fault_is_named_in_one_pass(tmp_path):
    path = write(
        tmp_path,
        "{not json",
        {"answers": ["x"]},
        {"question": "A?"},
        {"question": "B?", "answers": "x"},
        {"question": "C?", "answers": ["x", " "]},
        {"question": "D?", "answers": [], "document": ["a"]},
        {"question": "E?", "answers": [], "documents": "a"},
        {"question": "F?", "answers": [], "id": 1.5},
        {"question": "G?", "answers": []},
        {"question": "G?", "answers": ["x"]},
        {"question": "  ", "answers": 3},
        "[1]",
    )

    with pytest.raises(DataError) as caught:
        read_questions(path)

    found = [(problem.where.rpartition(":")[2], problem.what.partition(":")[0]) for problem in caught.value.problems]
    assert found == [
        ("1", "not valid JSON"),
        ("2", "has no question"),
        ("3", "has no answers"),
        ("4", "answers"),
        ("5", "answers"),
        ("6", "document"),
        ("7", "documents"),
        ("8", "id"),
        ("10", f"the question 'G?' stands in {path}"),
        ("11", "question"),
        ("11", "answers"),
        ("12", "is a list, not an object with named fields"),
    ]
    assert all(problem.fix for problem in caught.value.problems[:-1])


def test_an_empty_set_and_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no question"):
        read_questions(write(tmp_path))
    with pytest.raises(DataError, match="is no file"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_the_questions_of_a_world_are_read_as_they_are(tmp_path):
    world = closed_world(subjects=12, seed=1)
    world.write(tmp_path / "world")

    found = [
        one
        for split in ("train", "dev", "test")
        if (path := tmp_path / "world" / f"questions_{split}.jsonl").read_text()
        for one in read_questions(path)
    ]

    assert {(one.id, one.question, one.answers, one.documents) for one in found} == {
        (one.id, one.question, one.answers, one.documents) for one in world.questions
    }
