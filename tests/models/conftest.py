"""A cache folder of its own for every test here, and copies of the tiny model that may be spoilt."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty ftkit cache, so that nothing on this machine is read or written."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FTKIT_CACHE", str(folder))
    monkeypatch.delenv("FTKIT_OFFLINE", raising=False)
    return folder


@pytest.fixture
def spoilt(tiny_llama, tmp_path):
    """A copy of the tiny Llama to spoil."""
    return shutil.copytree(tiny_llama, tmp_path / "model")
