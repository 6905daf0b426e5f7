"""An exported system takes its reranker along, and is held to the order that it made."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from ftkit.errors import VerificationError
from ftkit.export.manifest import list_files, read_manifest
from ftkit.rag import proving
from ftkit.rag.bundling import verify
from ftkit.rag.exporting import export_rag
from ftkit.rag.opening import open_system
from ftkit.rag.rereading import reread
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from tests.rag.rerankers import reranker_folder
from tests.rag.shed import write_shed
from tests.rag.systems import QUESTION, keep_threshold, shed_index


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_llama, tiny_encoder):
    place = tmp_path_factory.mktemp("system")
    made = shed_index(write_shed(place / "shed"), place / "index", tiny_encoder, tiny_llama)
    reranker = reranker_folder(place / "own-reranker", seed=1)
    write_defaults(made, AnsweringDefaults(passages=2, max_new_tokens=4, reranker=str(reranker), reranked=5))
    keep_threshold(made, -50.0)
    return made


@pytest.fixture(scope="module")
def exported(index):
    export_rag(index, index.with_name("exported"), quiet=True)
    return index.with_name("exported")


@pytest.fixture
def copy(exported, tmp_path, monkeypatch):
    """One to tamper with, which is reread in this very process."""

    @contextlib.contextmanager
    def within(job, _):
        out = tmp_path / "reread"
        out.mkdir(exist_ok=True)
        reread(job, out)
        yield out

    monkeypatch.setattr(proving, "read_alone", within)
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def failed(folder):
    """What a check finds though the manifest lists the files as they are now."""
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(values | {"files": list_files(folder)}))
    return {check.name: check.detail for check in verify(folder).failures}


def defaults(folder, **changes):
    path = folder / "index" / "defaults.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_reranker_leaves_with_the_export_and_orders_there_as_here(index, exported):
    here, there = open_system(index), open_system(exported)

    assert json.loads((exported / "verify.json").read_text())["passed"]
    assert there.reranker.found.folder == (exported / "reranker").resolve()
    assert there.reranker.sha256 == here.reranker.sha256
    assert there.conditions == here.conditions
    assert there.threshold == -50.0
    assert there.retrieve(QUESTION) == here.retrieve(QUESTION)
    assert all("reranked" in hit.ranks for hit in there.retrieve(QUESTION))
    assert read_manifest(exported).notes["reranker"] == {"sha256": here.reranker.sha256, "reranked": 5}
    assert "the first 5 hits ordered anew by `reranker/`" in (exported / "README.md").read_text()


def test_another_reranker_in_its_place_is_noticed(copy):
    shutil.rmtree(copy / "reranker")
    reranker_folder(copy / "reranker", seed=9)
    found = failed(copy)

    assert found["reranker"] == "the reranker is another than before"
    assert "scores_match" in found


@pytest.mark.parametrize("change", [{"reranker": None}, {"reranked": 1}])
def test_reranking_that_is_lost_or_changed_is_noticed(copy, change):
    defaults(copy, **change)

    assert failed(copy)["reranker"] == "the reranker is another than before"


@pytest.mark.parametrize("name", ["/etc", "../encoder", "some/body"])
def test_an_export_cannot_name_a_reranker_outside_of_itself(copy, name):
    defaults(copy, reranker=name)

    with pytest.raises(VerificationError, match=f"names the reranker '{name}'; in an export it must be"):
        open_system(copy)
    assert "in an export it must be '../reranker'" in failed(copy)["loads"]


def test_a_reranker_that_is_a_link_out_of_the_export_is_refused(copy, tmp_path):
    (copy / "reranker").rename(tmp_path / "elsewhere")
    (copy / "reranker").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(VerificationError, match="has no folder reranker of its own"):
        open_system(copy)
