"""Every notebook runs from top to bottom, with fewer steps than a person would take."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
VERIFIED = ("adapter passed", "merged passed")
# What each prints: how bad wishes are refused, and what came of the good ones.
PRINTED = {
    "01_quickstart": ("Did you mean 'learning_rate'?", *VERIFIED),
    "02_methods": ("prefix has no 'merged' export; it has 'adapter'", *VERIFIED),
    "03_data": (
        "rows        300 read: 300 to train on, 0 held back",
        '⟦{"topic": "billing", "order": null, "item": "tray", "urgent": false}<|im_end|>⟧',  # row 17
        "1 row, 2 sequences",
        "Did you mean 'assistant'?",
        "spells the control token '<|im_end|>'",
        # The faults that it plants: 60 rows of the shop, then these in order; the fourth repeats row 11.
        "planted.jsonl:61: turn 1: j…@lamp-and-shade-shop.com",
        "planted.jsonl:62: turn 1: '...'",
        "planted.jsonl:63: turn 0: Ã© for é",
        "planted.jsonl:64 = ",
        "planted.jsonl:66 = ",
        "shop_tickets_heldback.jsonl:1 = ",
        "{'also in evaluation': 1, 'duplicate': 1, 'near-duplicate': 1}",
        "data.max_length is 86",
        "23 conversations and 7 texts",
    ),
    "04_exports": (
        "'gguf-adapter' or 'onnx', not 'gguff'",
        "'int3' is no dtype of merged; it has auto, float32, bfloat16, float16",
        *VERIFIED,
        "['chat_template', 'files', 'token_contract']",
        "whole again: True",
        "the same bytes twice: True",
        "ftkit unbundle BUNDLE -o tuned",
        "the server answers as the export does: True",
        "tokens as in training: True 30",
    ),
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
    assert [text for text in PRINTED[notebook.stem] if text not in printed] == []


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_output(notebook):
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert not cell.get("outputs"), "clear the outputs before committing"
