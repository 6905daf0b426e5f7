"""One run with its exports, copied by each test that spoils it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.running import ftkit, write_recipe
from tests.tiny import write_rows


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_llama):
    """A finished run; read-only."""
    folder = tmp_path_factory.mktemp("finished")
    write_rows(folder / "rows.jsonl", 16)
    outcome = ftkit("train", write_recipe(folder, tiny_llama), "export=[adapter,merged]", "--quiet")
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run to spoil; `adapter` and `merged` are its exports, `mark` what no payload may write."""
    copy = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    exports = {kind: copy / "export" / kind for kind in ("adapter", "merged")}
    return SimpleNamespace(folder=copy, mark=tmp_path / "mark", **exports)


@pytest.fixture
def base(tiny_llama, tmp_path):
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))
