"""What holds for every notebook without running it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.notebooks.running import FOLDER


def test_every_notebook_has_a_test_that_runs_it():
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))

    assert [path.stem for path in FOLDER.glob("*.ipynb") if f'"{path.stem}"' not in tests] == []


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_output(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert not cell.get("outputs"), "clear the outputs before committing"
