"""A hybrid in one folder sends and answers as the live one did, without anything outside of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ftkit.errors import UsageError, VerificationError
from ftkit.export.manifest import list_files
from ftkit.hybrid import proving
from ftkit.hybrid.exporting import export_hybrid
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.proving import verify
from ftkit.hybrid.rereading import answers_of, reread
from ftkit.hybrid.run import run_hybrid
from ftkit.rag.questions import read_questions
from ftkit.rag.run import run_rag
from ftkit.recipe import HybridRecipe, RagRecipe
from tests.rag.shed import shed_recipe, write_shed

ASK = """
import json, sys
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.rereading import answers_of
print(json.dumps(answers_of(open_hybrid(sys.argv[1]), json.loads(sys.argv[2]))))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def live(topics, tmp_path_factory):
    """A RAG run with a tuned reader, a model without documents, and one with an index, all of random weights."""
    folder = tmp_path_factory.mktemp("live")
    shed = write_shed(folder / "shed")
    values = shed_recipe(shed, topics / "model", topics / "encoder", output=str(folder / "rag"), stages=("reader",))
    run_rag(RagRecipe.model_validate(values), quiet=True)
    recipe = {
        "recipe": "hybrid",
        "members": {
            "tuned": {"path": str(folder / "rag")},
            "plain": {"path": str(topics / "model")},
            "towns": {"path": str(topics / "model"), "index": str(topics / "towns-index"), "retrieval": "dense"},
        },
        "data": str(topics / "questions.jsonl"),
        "router": {"encoder": str(topics / "encoder"), "l2": 0.01},
        "answer": {"max_new_tokens": 6},
        "output": str(folder / "run"),
    }
    run_hybrid(HybridRecipe.model_validate(recipe), quiet=True)
    # Untrained members are all wrong, so it falls back. Here it is to choose, by whose right answers are likelier.
    chosen = json.loads((folder / "run" / "router.json").read_text())
    assert chosen["promoted"] is False
    (folder / "run" / "router.json").write_text(json.dumps(chosen | {"promoted": True}))
    return folder / "run"


@pytest.fixture(scope="module")
def exported(live):
    assert export_hybrid(live, live.with_name("exported"), quiet=True).passed
    return live.with_name("exported")


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def questions(topics):
    return [one.question for one in read_questions(topics / "questions.jsonl")][::3]


def failed(folder):
    return {check.name for check in verify(folder).failures}


def test_another_process_gets_the_same_routes_answers_and_sources_without_the_original_places(
    live, copy, questions, tmp_path
):
    expected = answers_of(open_hybrid(live), questions)
    places = [live, live.with_name("rag"), live.with_name("shed")]
    hidden = [place.rename(place.with_name(f"{place.name}-away")) for place in places]
    try:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "FTKIT_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(copy), json.dumps(questions)],
            capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
        )  # fmt: skip
    finally:
        for place in hidden:
            place.rename(place.with_name(place.name.removesuffix("-away")))

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len({one["member"] for one in found}) > 1  # it chooses
    for now, before in zip(found, expected, strict=True):
        assert [one.pop("score") for one in now["citations"]] == pytest.approx(
            [one.pop("score") for one in before["citations"]], abs=1e-5
        )
        assert now == before


def test_nothing_in_it_names_a_place_outside(live, exported, topics):
    outside = [str(live.parent).encode(), str(topics).encode()]
    for name in ("hybrid.json", "router.json", "manifest.json", "README.md", "closed_book/index.json"):
        assert not any(place in (exported / name).read_bytes() for place in outside), name
    description = json.loads((exported / "hybrid.json").read_text())
    assert {name: one["path"] for name, one in description["members"].items()} == {
        "tuned": "members/tuned", "plain": "members/plain/generator", "towns": "members/towns",
    }  # fmt: skip
    assert all(one["index"] is None for one in description["members"].values())


def test_every_member_is_held_to_what_an_export_of_its_kind_is_held_to(exported):
    checks = {check["name"]: check for check in json.loads((exported / "verify.json").read_text())["checks"]}

    assert {"files", "loads", "routes_match", "greedy_text_match", "citations_match", "scores_match"} <= set(checks)
    assert checks["members.tuned"]["value"]["differs_from_base"] is True
    assert checks["members.towns"]["value"]["logits_match_trained"] is True


def test_another_choice_is_seen_even_with_a_manifest_to_match(copy, monkeypatch, tmp_path):
    monkeypatch.setattr(proving, "_check_members", lambda _: [])  # each of them is a process of its own

    @contextlib.contextmanager
    def here(job, _):
        reread(job, tmp_path)
        yield tmp_path

    monkeypatch.setattr(proving, "read_alone", here)
    chosen = json.loads((copy / "router.json").read_text())
    (copy / "router.json").write_text(json.dumps(chosen | {"promoted": False}))
    values = json.loads((copy / "manifest.json").read_text())

    assert "files" in failed(copy)
    (copy / "manifest.json").write_text(json.dumps(values | {"files": list_files(copy)}))
    found = failed(copy)
    assert "routes_match" in found and "files" not in found


@pytest.mark.parametrize("place", ["/etc", "../elsewhere", "members/towns/generator"])
def test_an_export_that_names_anything_but_its_own_parts_is_refused(copy, place):
    description = json.loads((copy / "hybrid.json").read_text())
    description["members"]["plain"]["path"] = place
    (copy / "hybrid.json").write_text(json.dumps(description))

    with pytest.raises(VerificationError, match=r"names .* as members\.plain\.path"):
        open_hybrid(copy)


def test_what_is_no_run_of_a_hybrid_is_refused(exported, topics, tmp_path):
    with pytest.raises(UsageError, match="export already"):
        export_hybrid(exported, tmp_path / "again")
    with pytest.raises(UsageError, match="is no hybrid"):
        export_hybrid(topics / "model", tmp_path / "again")
