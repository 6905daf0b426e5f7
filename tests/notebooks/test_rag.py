"""The notebook 05_rag.ipynb: an edit seen and taken back, three stages trained, each answer with its sources."""

from __future__ import annotations

import pytest

from tests.notebooks.running import missing_in
from tests.rag.encoders import encoder_folder
from tests.tiny import tiny_model_folder

PRINTED = (
    "version 1:", "stated now: True", "as before after the rollback: True", "reader, held-back loss:",
    "retriever: 2 steps", "recall@5", "not_retrieved",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path, monkeypatch):
    model = tiny_model_folder(tmp_path / "model", max_position_embeddings=4096)
    encoder = encoder_folder(tmp_path / "encoder", max_tokens=512)

    assert missing_in("05_rag", PRINTED, tmp_path, monkeypatch, model=str(model), encoder=str(encoder)) == []
