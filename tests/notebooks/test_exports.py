"""The notebook 04_exports.ipynb: what it prints, of how bad wishes are refused and what came of the good ones."""

from __future__ import annotations

import pytest

from tests.notebooks.running import VERIFIED, missing_in

PRINTED = (
    "'gguf-adapter' or 'onnx', not 'gguff'",
    "'int3' is no dtype of merged; it has auto, float32, bfloat16, float16",
    *VERIFIED,
    "['chat_template', 'files', 'token_contract']",
    "whole again: True",
    "the same bytes twice: True",
    "ftkit unbundle BUNDLE -o tuned",
    "the server answers as the export does: True",
    "tokens as in training: True 30",
)


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path, smollm2, monkeypatch):
    assert missing_in("04_exports", PRINTED, tmp_path, monkeypatch, fewer_rows=True) == []
