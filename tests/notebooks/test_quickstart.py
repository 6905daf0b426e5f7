"""The notebook 01_quickstart.ipynb: what it prints, of how bad wishes are refused and what came of the good ones."""

from __future__ import annotations

import pytest

from tests.notebooks.running import VERIFIED, missing_in

PRINTED = ("Did you mean 'learning_rate'?", *VERIFIED)


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path, smollm2, monkeypatch):
    assert missing_in("01_quickstart", PRINTED, tmp_path, monkeypatch, fewer_rows=True) == []
