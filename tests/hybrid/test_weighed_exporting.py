"""A mixture or a memory in one folder answers as the live one did, without anything outside of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ftkit.errors import DataError, ModelError, VerificationError
from ftkit.hybrid.exporting import export_hybrid
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.rereading import answers_of
from ftkit.hybrid.run import run_hybrid
from ftkit.rag.run import run_rag
from ftkit.recipe import HybridRecipe, RagRecipe
from tests.hybrid.conftest import rows
from tests.hybrid.test_exporting import ASK, ROOT
from tests.rag.shed import shed_recipe, write_shed


@pytest.fixture(scope="module")
def world(topics, tmp_path_factory):
    """A RAG run with a tuned reader, whose weights have other names in an export, and a model; of random weights."""
    folder = tmp_path_factory.mktemp("weighed")
    shed = write_shed(folder / "shed")
    shutil.copytree(topics / "model", folder / "model")
    shutil.copytree(topics / "encoder", folder / "encoder")
    values = shed_recipe(shed, folder / "model", folder / "encoder", output=str(folder / "rag"), stages=("reader",))
    run_rag(RagRecipe.model_validate(values), quiet=True)
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()[::4]))
    return folder


def live(world, kind):
    members = {"docs": {"path": str(world / "rag"), "passages": 2}}
    if kind == "mixture":
        members = {"plain": {"path": str(world / "model")}, **members}
    recipe = {
        "recipe": "hybrid",
        "kind": kind,
        "members": members,
        "data": {"train": str(world / "dev.jsonl"), "validation": None},
        "answer": {"max_new_tokens": 6},
        "output": str(world / kind),
    }
    run_hybrid(HybridRecipe.model_validate(recipe), quiet=True)
    # Halves that hardly differ are weighed by chance. Here both are to have a say.
    stored = json.loads((world / kind / "weight.json").read_text())
    (world / kind / "weight.json").write_text(json.dumps(stored | {"weight": 0.5}))
    return world / kind


def asked_elsewhere(folder, questions, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "FTKIT_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), json.dumps(questions)],
        capture_output=True, text=True, check=False, env=environment, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["mixture", "memory"])
def test_an_export_answers_the_same_after_the_originals_are_moved_away(world, kind, tmp_path):
    place = live(world, kind)
    questions = [str(row["question"]) for row in rows()[::6]]
    expected = answers_of(open_hybrid(place), questions)
    verified = export_hybrid(place, tmp_path / "exported", quiet=True)
    copy = Path(shutil.move(tmp_path / "exported", tmp_path / "copy"))
    hidden = world.rename(world.with_name("away"))
    try:
        found = asked_elsewhere(copy, questions, tmp_path)
    finally:
        hidden.rename(world)

    assert verified.passed
    assert len({one["confidence"] for one in expected}) == len(questions)  # untrained, they often say the same
    for now, before in zip(found, expected, strict=True):
        assert now.pop("confidence") == pytest.approx(before.pop("confidence"), abs=1e-5)
        assert [one.pop("score") for one in now["citations"]] == pytest.approx(
            [one.pop("score") for one in before["citations"]], abs=1e-5
        )
        assert now == before
    for name in ("hybrid.json", "weight.json", "manifest.json", "README.md"):
        assert str(world).encode() not in (copy / name).read_bytes()
    assert not (copy / "encoder").exists()  # members bring their own
    spoil(copy, kind)


def spoil(copy, kind):
    """What is missing or of another model is refused where it is opened."""
    if kind == "mixture":
        described = json.loads((copy / "hybrid.json").read_text())
        described["members"]["plain"]["path"] = "/etc"
        (copy / "hybrid.json").write_text(json.dumps(described))
        with pytest.raises(VerificationError, match=r"names '/etc' as members\.plain\.path"):
            open_hybrid(copy)
        return
    store = json.loads((copy / "memory" / "datastore.json").read_text())
    (copy / "memory" / "datastore.json").write_text(json.dumps(store | {"generator": "0" * 64}))
    with pytest.raises(ModelError, match="was made by a model of digest"):
        open_hybrid(copy)
    shutil.rmtree(copy / "memory")
    with pytest.raises(DataError, match="cannot be read"):
        open_hybrid(copy)
