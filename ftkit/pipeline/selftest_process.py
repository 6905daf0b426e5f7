"""``python -m ftkit.pipeline.selftest_process VERB PATH ANSWER``: one piece of a selftest in a process of its own.

VERB is ``run`` or ``step`` (PATH is a recipe file), or ``resume`` (PATH is a run folder). ANSWER is the JSON file
that takes what came out: the value, or the error that was meant for a person.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ftkit import errors
from ftkit.errors import FtkitError
from ftkit.files import write_json
from ftkit.pipeline.run import resume, run
from ftkit.pipeline.selftest_gradients import measure_step
from ftkit.recipe import load_recipe


def work(verb: str, path: Path) -> dict[str, Any]:
    """Do one piece.

    Args:
        verb: ``run``, ``resume`` or ``step``.
        path: Recipe file or run folder.

    Returns:
        The content of result.json, or what `measure_step` found.

    Raises:
        FtkitError: As the piece does.
    """
    if verb == "resume":
        return resume(path).result
    recipe = load_recipe(path)
    return run(recipe).result if verb == "run" else measure_step(recipe)


def main(verb: str, path: str, answer: str) -> None:
    """Do one piece and write its answer."""
    try:
        document: dict[str, Any] = {"value": work(verb, Path(path))}
    except FtkitError as error:
        # The name of a kind that the caller knows, whatever was derived from it.
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        document = {"error": {"kind": kind, "problems": [vars(problem) for problem in error.problems]}}
    write_json(Path(answer), document)


if __name__ == "__main__":
    main(*sys.argv[1:])
