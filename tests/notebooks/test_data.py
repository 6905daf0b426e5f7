"""The notebook 03_data.ipynb: what it prints, of how bad wishes are refused and what came of the good ones."""

from __future__ import annotations

import pytest

from tests.notebooks.running import missing_in

PRINTED = (
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
)


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path, smollm2, monkeypatch):
    assert missing_in("03_data", PRINTED, tmp_path, monkeypatch) == []
