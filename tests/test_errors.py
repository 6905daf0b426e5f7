"""Errors tell every problem at once, and scripts their kind by the exit code."""

from __future__ import annotations

import re

import pytest

from ftkit import errors
from ftkit.errors import DataError, FtkitError, OutputError, Problem, RecipeError, UsageError

# cli.md: 0 ok, then these. A contract that people script against.
EXIT_CODES = {
    "UsageError": 2,
    "RecipeError": 2,
    "OutputError": 2,
    "DataError": 3,
    "ResourceError": 4,
    "VerificationError": 5,
    "MissingPartError": 6,
    "ModelError": 7,
    "TrainingStoppedError": 8,
    "Interrupted": 130,
}


def test_every_kind_of_error_has_its_exit_code():
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, FtkitError) and kind is not FtkitError
    }

    assert found == EXIT_CODES


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = {name: int(code) for name, code in re.findall(r"[|`]- *(\w+) +(\d+)", errors.__doc__)}

    assert drawn == EXIT_CODES
    assert issubclass(RecipeError, UsageError)
    assert issubclass(OutputError, UsageError)


def test_a_problem_reads_place_then_fault_then_indented_remedy():
    problem = Problem(where="r.yaml:3: train.seed", what="should be a whole number", fix="Write 1.\nOr 2.")

    assert str(problem) == "r.yaml:3: train.seed: should be a whole number\n  Write 1.\n  Or 2."
    assert str(Problem(what="all of it is wrong")) == "all of it is wrong"


def test_an_error_of_one_sentence_is_one_problem_with_its_remedy():
    error = DataError("t.jsonl: is empty", fix="Add rows.")

    assert error.problems == (Problem(what="t.jsonl: is empty", fix="Add rows."),)
    assert str(error) == "t.jsonl: is empty\n  Add rows."


@pytest.mark.parametrize(
    ("count", "last_line"), [(20, "fault 19"), (21, "... and 1 more problems (--json lists all)")]
)
def test_twenty_problems_are_shown_and_the_rest_counted_but_kept(count, last_line):
    error = DataError([Problem(what=f"fault {index}") for index in range(count)])

    assert str(error).splitlines()[-1] == last_line
    assert len(error.problems) == count
