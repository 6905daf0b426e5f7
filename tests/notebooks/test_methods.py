"""The notebook 02_methods.ipynb: what it prints, of how bad wishes are refused and what came of the good ones."""

from __future__ import annotations

import pytest

from tests.notebooks.running import VERIFIED, missing_in

PRINTED = ("prefix has no 'merged' export; it has 'adapter'", *VERIFIED)


@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path, tiny_llama, monkeypatch):
    assert missing_in("02_methods", PRINTED, tmp_path, monkeypatch, fewer_methods=True, model=str(tiny_llama)) == []
