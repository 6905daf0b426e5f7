"""The notebook 06_compare_and_advise.ipynb: systems measured, claims judged, nothing done twice, an advice."""

from __future__ import annotations

import pytest

from tests.notebooks.running import missing_in
from tests.rag.encoders import encoder_folder
from tests.tiny import tiny_model_folder

PRINTED = (
    "closed-book", "two searches", "routed", "reader - dense, nll:",
    "supported     Retrieval alone takes no training", "after 4 edits:", "the page: comparison.html",
    "run again, nothing is trained or asked anew: True", "choice:", "[P-share]",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path, monkeypatch):
    model = tiny_model_folder(tmp_path / "model", max_position_embeddings=4096)
    encoder = encoder_folder(tmp_path / "encoder", max_tokens=512)

    found = missing_in(
        "06_compare_and_advise", PRINTED, tmp_path, monkeypatch, model=str(model), encoder=str(encoder)
    )
    assert found == []
