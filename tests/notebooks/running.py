"""Notebooks run from top to bottom, with fewer steps than a person would take.

Each has a test file of its own, so that they run beside one another: files are what is shared out among processes.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
# Exports are verified in forks, as in every test (see `tests.forking`).
FORKED = f"""
import sys
sys.path.append({str(ROOT)!r})
from ftkit.export import process
from tests.forking import ForkedRuns
process.subprocess = ForkedRuns()
"""
# Losses are taken over all rows that are held back, and exports compared on them: most of the real model's time.
FEWER_ROWS = """
_heldback = WORK / "data" / "shop_tickets_heldback.jsonl"
_heldback.write_text("".join(_heldback.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
"""
# Each method trains in a process of its own there; all six are trained elsewhere in the tests, on the real model too.
FEWER_METHODS = """
recipes = {name: recipes[name] for name in ("lora", "prefix")}
"""
REAL_MODEL, REAL_ENCODER = "smollm2-135m", "all-minilm-l6-v2"
VERIFIED = ("adapter passed", "merged passed")


def missing_in(
    name: str,
    expected: tuple[str, ...],
    folder: Path,
    monkeypatch,
    *,
    fewer_rows: bool = False,
    fewer_methods: bool = False,
    model: str = REAL_MODEL,
    encoder: str = REAL_ENCODER,
) -> list[str]:
    """Run a notebook; gives those of the expected texts that it did not print.

    Args:
        name: Of its file.
        expected: What it must print.
        folder: Where it works.
        monkeypatch: Of the test.
        fewer_methods: Train two of the six.
        model: In place of the one that the notebook names.
        encoder: The same of the text encoder.
        fewer_rows: Hold only a few of the quickstart's rows back, once the notebook has copied them.
    """
    monkeypatch.setenv("FTKIT_NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("FTKIT_NOTEBOOK_FOLDER", str(folder / "work"))
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in book.cells:
        cell.source = cell.source.replace(f'"{REAL_MODEL}"', repr(model)).replace(f'"{REAL_ENCODER}"', repr(encoder))
    if fewer_rows:
        _insert_after("copy_recipe(", FEWER_ROWS, book)
    if fewer_methods:
        _insert_after("recipes[name] = ", FEWER_METHODS, book)
    _insert_after("import ftkit", FORKED, book)

    NotebookClient(book, timeout=1700, resources={"metadata": {"path": str(folder)}}).execute()

    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", []) if "text" in output
    )
    return [text for text in expected if text not in printed]


def _insert_after(mark: str, code: str, book: nbformat.NotebookNode) -> None:
    at = next(number for number, cell in enumerate(book.cells) if cell.cell_type == "code" and mark in cell.source)
    book.cells.insert(at + 1, nbformat.v4.new_code_cell(code))
