"""Notebooks run from top to bottom, with fewer steps than a person would take.

Each has a test file of its own, so that they run beside one another: files are what is shared out among processes.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
VERIFIED = ("adapter passed", "merged passed")


def missing_in(name: str, expected: tuple[str, ...], folder: Path, monkeypatch) -> list[str]:
    """Run a notebook; gives those of the expected texts that it did not print."""
    monkeypatch.setenv("FTKIT_NOTEBOOK_STEPS", "3")
    monkeypatch.setenv("FTKIT_NOTEBOOK_FOLDER", str(folder / "work"))
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)

    NotebookClient(book, timeout=1700, resources={"metadata": {"path": str(folder)}}).execute()

    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", []) if "text" in output
    )
    return [text for text in expected if text not in printed]
