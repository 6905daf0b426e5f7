"""Every notebook runs from top to bottom, with fewer steps than a person would take."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
# What each shows of how bad wishes are refused.
REFUSALS = {
    "01_quickstart": "Did you mean 'learning_rate'?",
    "02_methods": "prefix has no 'merged' export; it has 'adapter'",
}


@pytest.mark.real
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs(notebook, tmp_path, smollm2, monkeypatch):
    monkeypatch.setenv("FTKIT_NOTEBOOK_STEPS", "3")
    monkeypatch.setenv("FTKIT_NOTEBOOK_FOLDER", str(tmp_path / "work"))
    book = nbformat.read(notebook, as_version=4)

    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()

    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", []) if "text" in output
    )
    assert REFUSALS[notebook.stem] in printed
    assert "adapter passed" in printed
    assert "merged passed" in printed


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_output(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert not cell.get("outputs"), "clear the outputs before committing"
