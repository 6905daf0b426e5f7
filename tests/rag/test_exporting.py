"""A whole system in one folder: it answers as the live one did, and nothing in it can change unnoticed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ftkit.errors import DataError, OutputError, UsageError, VerificationError
from ftkit.export.manifest import list_files, read_manifest
from ftkit.files import sha256_file
from ftkit.pipeline.target import open_target
from ftkit.rag import exporting, proving
from ftkit.rag.bundling import verify
from ftkit.rag.document import Document
from ftkit.rag.exporting import export_rag
from ftkit.rag.index import Index, create_index
from ftkit.rag.opening import index_documents, index_folder, open_encoders, open_system
from ftkit.rag.rereading import reread
from ftkit.rag.run import run_rag
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from ftkit.rag.snapshot import copy_index
from ftkit.recipe import RagRecipe
from tests.abuse.test_network import may_unshare
from tests.cli.running import ftkit
from tests.rag.encoders import encoder_folder
from tests.rag.shed import shed_recipe, write_shed
from tests.rag.systems import QUESTION, keep_threshold, shed_index
from tests.tiny import tiny_model_folder

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = {"files", "loads", "tokenizer", "chat_template", "logits_match_trained", "differs_from_base",
            "greedy_text_match"}  # fmt: skip
OWN = {"encoder", "index", "threshold", "citations_match", "scores_match", "likelihood_match"}


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_llama, tiny_encoder):
    folder = tmp_path_factory.mktemp("system")
    made = shed_index(write_shed(folder / "shed"), folder / "index", tiny_encoder, tiny_llama)
    write_defaults(made, AnsweringDefaults(mode="hybrid", passages=2, max_new_tokens=8))
    keep_threshold(made, -50.0)
    return made


@pytest.fixture(scope="module")
def exported(index):
    export_rag(index, index.with_name("exported"), quiet=True)
    return index.with_name("exported")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_llama, tiny_encoder):
    """A run with an adapter as generator, and an encoder of its own for questions."""
    folder = tmp_path_factory.mktemp("run")
    shed, stages = write_shed(folder / "shed"), ("reader", "retriever")
    values = shed_recipe(shed, tiny_llama, tiny_encoder, output=str(folder / "run"), stages=stages)
    return run_rag(RagRecipe.model_validate(values), quiet=True).folder


@pytest.fixture(scope="module")
def carried(run):
    export_rag(run, run.with_name("carried"), quiet=True)
    return run.with_name("carried")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Exports are reread in this very process, where what is tested is how they are judged."""

    @contextlib.contextmanager
    def within(job, _):
        out = tmp_path / "reread"
        out.mkdir(exist_ok=True)
        reread(job, out)
        yield out

    monkeypatch.setattr(proving, "read_alone", within)


def failed(folder):
    outcome = verify(folder)
    assert json.loads((folder / "verify.json").read_text())["passed"] is outcome.passed
    return {check.name: check.detail for check in outcome.failures}


def resign(folder):
    """Let the manifest list the files as they are now, as whoever tampers on purpose would."""
    values = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(values | {"files": list_files(folder)}))


def answered(folder):
    answer = open_system(folder).ask(QUESTION)
    return answer.text, answer.abstained, answer.confidence, answer.citations


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_an_export_was_verified_with_every_check_of_the_contract(exported):
    verified = json.loads((exported / "verify.json").read_text())

    assert verified["passed"]
    assert {check["name"] for check in verified["checks"]} >= CONTRACT | OWN


def test_an_export_answers_and_cites_as_the_live_system(index, exported):
    assert answered(exported) == answered(index)
    assert answered(exported)[3][0].version == 3
    system = open_system(exported)
    assert (system.mode, system.passages, system.max_new_tokens, system.threshold) == ("hybrid", 2, 8, -50.0)


def test_every_file_is_listed_and_every_weight_is_safetensors(exported):
    manifest = read_manifest(exported)

    assert set(manifest.files) == set(list_files(exported))
    assert all(facts["sha256"] == sha256_file(exported / name) for name, facts in manifest.files.items())
    suffixes = {Path(name).suffix for name in manifest.files}
    assert suffixes <= {".safetensors", ".json", ".jinja", ".md", ".sqlite", ".f32", ".txt", ".base", ""}
    assert manifest.kind == "rag" and manifest.notes["index"]["version"] == 3


def test_what_was_removed_or_replaced_does_not_leave_with_the_export(index, exported):
    live_bytes = b"".join(path.read_bytes() for path in index.glob("index.sqlite*")).lower()
    raw = (exported / "index" / "index.sqlite").read_bytes().lower()

    assert b"zyzzyva7" in live_bytes  # `rollback` could bring it back there
    assert b"zyzzyva" not in raw and b"secret" not in raw
    with Index(exported / "index") as copied, Index(index) as live:
        assert copied.documents == live.documents
        assert copied.version == live.version == 3
        assert [info.number for info in copied.versions()] == [3]
        assert (exported / "index" / "vectors.f32").stat().st_size == 4 * 16 * copied.passages
        assert copied.require_sound() == live.passages


def test_nothing_outside_of_an_export_is_needed(index, exported, tmp_path, monkeypatch):
    moved = Path(shutil.copytree(exported, tmp_path / "moved"))
    before = answered(index)
    names = json.loads((moved / "index" / "index.json").read_text())

    assert (names["encoder"], names["query_encoder"], names["generator"]) == ("../encoder", None, "../generator")
    monkeypatch.chdir(tmp_path)
    assert answered("moved") == before


def test_a_run_leaves_with_its_adapter_the_base_and_both_encoders(run, carried):
    outcome = json.loads((carried / "verify.json").read_text())

    assert outcome["passed"]
    assert {check["name"] for check in outcome["checks"]} >= CONTRACT | OWN | {"generator", "base", "token_contract"}
    assert (carried / "generator" / "adapter_model.safetensors").is_file()
    assert (carried / "base" / "model.safetensors").is_file()
    assert (carried / "query_encoder" / "model.safetensors").is_file()
    probes = json.loads((carried / "verification" / "probes.json").read_text())["probes"]
    assert [one["question"] for one in probes] == ["What is the plane?", "What is the mop?"]  # those held back
    assert probes[0]["gold"] == "white10"
    assert answered(carried) == answered(run)


def test_the_base_of_an_exported_adapter_is_the_one_beside_it_and_no_other(carried, tmp_path, here):
    shutil.copytree(carried, tmp_path / "out", ignore=shutil.ignore_patterns("base"))

    # The machine that wrote it still has the base where the adapter's own settings name it.
    found = failed(tmp_path / "out")
    assert set(found) >= {"files", "loads", "generator"}
    assert "base" in found["loads"]


def test_one_changed_byte_in_any_file_is_named(copy, here):
    names = list(read_manifest(copy).files)
    for name in names:
        raw = bytearray((copy / name).read_bytes())
        kept = bytes(raw)
        raw[len(raw) // 2] ^= 1
        (copy / name).write_bytes(raw)
        problems = [str(one) for one in proving.check_files(copy, read_manifest(copy)).detail.split("; ")]
        assert problems == [f"{name}: has other bytes than were exported"]
        (copy / name).write_bytes(kept)
    assert len(names) > 15


def test_a_changed_byte_fails_with_exit_code_5(copy, here):
    raw = bytearray((copy / "generator" / "model.safetensors").read_bytes())
    raw[-1] ^= 0x40
    (copy / "generator" / "model.safetensors").write_bytes(raw)
    outcome = ftkit("verify", copy)

    assert outcome.code == 5
    assert "generator/model.safetensors: has other bytes than were exported" in outcome.out


def test_another_encoder_is_noticed_though_the_manifest_lists_it(copy, here, tmp_path):
    shutil.rmtree(copy / "encoder")
    encoder_folder(copy / "encoder", seed=5)
    resign(copy)
    found = failed(copy)

    assert "files" not in found
    assert "is another encoder" in found["loads"]
    assert ftkit("verify", copy).code == 5


def test_another_generator_is_noticed_though_the_manifest_lists_it(copy, here, tmp_path):
    other = tiny_model_folder(tmp_path / "other", seed=3)
    shutil.copyfile(other / "model.safetensors", copy / "generator" / "model.safetensors")
    resign(copy)
    found = failed(copy)

    assert set(found) >= {"threshold", "likelihood_match", "logits_match_trained"}
    assert found["threshold"] == "the generator is another than before"
    assert "citations_match" not in found


def test_an_edited_passage_is_noticed_though_the_manifest_lists_it(copy, here):
    with sqlite3.connect(copy / "index" / "index.sqlite") as database:
        database.execute("update revision set text = replace(text, 'red0', 'tan0') where document = 'rake.txt'")
    database.close()
    resign(copy)
    found = failed(copy)

    assert "the text of rake.txt differs from the one that was written" in found["index"]
    assert "citations_match" in found


def test_an_edit_that_keeps_every_digest_is_noticed_by_what_is_cited(copy, here, pair):
    """As whoever rebuilds the index from other documents would: it is sound in itself."""
    with Index(copy / "index") as old:
        texts = {name: old.text(name) for name in old.documents}
        settings = old.settings
    shutil.rmtree(copy / "index")
    with create_index(copy.parent / "other", settings) as other:
        changed = {name: text.replace("red0", "tan0") for name, text in texts.items()}
        other.add([Document(id=name, text=text) for name, text in changed.items()], pair)
    shutil.copytree(copy.parent / "other", copy / "index")
    resign(copy)
    found = failed(copy)

    assert "the index holds something else than was exported" in found["index"]
    assert set(found) >= {"citations_match", "threshold"}


def test_a_threshold_that_is_lost_is_noticed(copy, here):
    (copy / "index" / "answering.json").unlink()
    resign(copy)

    assert failed(copy)["threshold"] == "abstains below None, and the live system below -50.0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder", "/etc"),
        ("generator", "../../generator"),
        ("encoder", "some/body"),
        ("query_encoder", "../encoder"),
    ],
)
def test_an_export_cannot_name_anything_outside_of_itself(copy, here, key, value):
    path = copy / "index" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    resign(copy)

    with pytest.raises(VerificationError, match=f"names the {key.replace('_', ' ')} '{value}'"):
        open_system(copy)
    assert "in an export it must be" in failed(copy)["loads"]


def test_a_part_that_is_a_link_out_of_the_export_is_refused(copy, tmp_path):
    (copy / "encoder").rename(tmp_path / "encoder")
    (copy / "encoder").symlink_to(tmp_path / "encoder")

    with pytest.raises(VerificationError, match="has no folder encoder of its own"):
        open_system(copy)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/passwd"])
def test_a_manifest_cannot_name_files_outside_of_its_folder(copy, name):
    values = json.loads((copy / "manifest.json").read_text())
    values["files"][name] = {"size": 1, "sha256": "0" * 64}
    (copy / "manifest.json").write_text(json.dumps(values))

    with pytest.raises(VerificationError, match="points outside its folder"):
        verify(copy)


def test_a_manifest_without_its_notes_does_not_pass(copy, here):
    values = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(values | {"notes": {}}))

    assert "loads" in failed(copy)


def test_an_export_cannot_be_changed_in_place(exported, index, pair):
    before = list_files(exported)
    for folder in (index_folder(exported), exported / "index"):
        with Index(folder) as opened, pytest.raises(OutputError, match="stays as it was verified"):
            opened.add([Document(id="new", text="The new one.")], pair)
    outcome = ftkit("rag", "remove", exported, "rake.txt")

    assert outcome.code == 2 and "Change the index that it was exported from" in outcome.err
    assert list_files(exported) == before


def test_asking_and_evaluating_an_export_leaves_its_bytes(exported, index, tmp_path):
    before = list_files(exported)
    asked = ftkit("rag", "ask", exported, "--question", QUESTION, "--json")
    scored = ftkit("rag", "eval", exported, "--data", index.with_name("shed") / "dev.jsonl", "--json", "-q")

    assert asked.code == scored.code == 0, asked.err + scored.err
    assert json.loads(asked.out)["citations"][0]["version"] == 3
    assert json.loads(scored.out)["questions"] == 2
    assert list_files(exported) == before


def test_what_is_no_finished_system_is_not_exported(exported, index, tmp_path, tiny_llama):
    with pytest.raises(UsageError, match="is an export already"):
        export_rag(exported, tmp_path / "out")
    with pytest.raises(UsageError, match="is neither an index nor a RAG run"):
        export_rag(tiny_llama, tmp_path / "out")
    with pytest.raises(OutputError, match="not empty"):
        export_rag(index, exported)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "rag.json").write_text("{}")
    with pytest.raises(OutputError, match=r"is not finished\n.*ftkit resume"):
        export_rag(tmp_path / "begun", tmp_path / "out")
    refused = ftkit("export", index, "--to", "merged", "-o", tmp_path / "out")
    assert refused.code == 2 and "has no 'merged' export" in refused.err
    assert not (tmp_path / "out").exists()


def test_an_empty_index_is_not_exported(tmp_path, index, pair):
    with Index(index) as live:
        create_index(tmp_path / "empty", live.settings).close()

    with pytest.raises(DataError, match="holds no documents"):
        export_rag(tmp_path / "empty", tmp_path / "out")


def test_an_index_that_changes_meanwhile_is_not_exported_with_answers_of_before(index, tmp_path, monkeypatch, pair):
    own = Path(shutil.copytree(index, tmp_path / "index"))

    def late(live, folder, names):
        with Index(own) as other:
            other.add([Document(id="late.txt", text="The late one.")], pair)
        return copy_index(live, folder, names)

    monkeypatch.setattr(exporting, "copy_index", late)
    with pytest.raises(OutputError, match="was changed while it was exported, from version 3 to 4"):
        export_rag(own, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_generator_is_not_asked_what_a_whole_system_is(exported):
    with pytest.raises(UsageError, match="is a whole RAG system"):
        open_target(str(exported))
    with pytest.raises(UsageError, match="takes no --base"):
        open_target(str(exported), base=exported)
    with pytest.raises(UsageError, match="holds its base"):
        verify(exported, base=exported / "generator")


def test_a_bundle_has_the_same_bytes_twice_and_is_verified_as_it_is(exported, tmp_path, here):
    for name in ("one.tar.gz", "two.tar.gz"):
        packed = ftkit("export", exported, "--bundle", "-o", tmp_path / name, "-q")
        assert packed.code == 0, packed.err
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()

    outcome = ftkit("verify", tmp_path / "one.tar.gz", "--json")
    assert outcome.code == 0, outcome.out
    assert json.loads(outcome.out)["checks"][0]["name"] == "bundle"
    assert ftkit("unbundle", tmp_path / "one.tar.gz", "-o", tmp_path / "there", "-q").code == 0
    assert answered(tmp_path / "there" / "model") == answered(exported)
    guide = (tmp_path / "there" / "run.md").read_text()
    assert "# Answers from documents, by llama\n" in guide and "ftkit rag ask tuned/model" in guide


def test_an_index_can_be_bundled_at_once(index, tmp_path, here):
    packed = ftkit("export", index, "--to", "rag", "--bundle", "-o", tmp_path / "all.tar", "--json", "-q")

    assert packed.code == 0, packed.err
    assert json.loads(packed.out)["kind"] == "rag"
    assert sorted(path.name for path in tmp_path.glob("*") if path.name != "reread") == ["all.tar"]


LINE = """
import sys
from ftkit.cli.app import main
for words in (["verify", "carried", "-q"], ["rag", "ask", "carried", "-q", "What is the rake?", "--json", "--quiet"]):
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code, (words, ended.code)
"""


def test_an_export_verifies_and_answers_in_a_namespace_without_network(run, carried, tmp_path):
    if not may_unshare():
        pytest.skip("unshare -rn is not permitted here, so no network namespace can be made")
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "FTKIT_OFFLINE")}
    environment |= {
        "PYTHONPATH": str(ROOT), "FTKIT_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub"),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    hidden = run.with_name("hidden")
    run.rename(hidden)  # what it was exported from is gone
    try:
        words = ["unshare", "-rn", sys.executable, "-c", LINE]
        done = subprocess.run(words, cwd=carried.parent, env=environment, capture_output=True, text=True, check=False)
    finally:
        hidden.rename(run)

    assert done.returncode == 0, done.stderr
    here, there = open_system(run).ask(QUESTION), json.loads(done.stdout)
    assert there["text"] == here.text
    assert [(one["document"], one["start"], one["text"]) for one in there["citations"]] == [
        (one.document, one.start, one.text) for one in here.citations
    ]


def test_encoders_of_an_export_are_its_own(exported):
    pair = open_encoders(index_folder(exported))

    assert pair.document.found.folder == (exported / "encoder").resolve()
    assert read_manifest(exported).notes["encoder"]["sha256"] == pair.sha256


def test_a_run_as_generator_leaves_as_its_adapter_with_the_threshold_in_force(run, tmp_path, tiny_encoder, here):
    documents = run.with_name("shed") / "docs"
    index_documents([documents], tmp_path / "index", encoder=str(tiny_encoder), generator=str(run / "reader"))
    keep_threshold(tmp_path / "index", 0.0)
    export_rag(tmp_path / "index", tmp_path / "out", quiet=True)

    assert read_manifest(tmp_path / "out").notes["generator"]["kind"] == "adapter"
    assert answered(tmp_path / "out") == answered(tmp_path / "index")
    assert answered(tmp_path / "out")[1] is True


def test_a_threshold_of_another_generator_is_not_taken_along(index, tmp_path, here):
    own = Path(shutil.copytree(index, tmp_path / "index"))
    values = json.loads((own / "answering.json").read_text())
    (own / "answering.json").write_text(json.dumps(values | {"generator": "0" * 64, "threshold": 0.0}))
    export_rag(own, tmp_path / "out", quiet=True)

    assert not (tmp_path / "out" / "index" / "answering.json").exists()
    assert open_system(tmp_path / "out").threshold is None


def test_questions_of_an_index_come_from_its_documents(exported):
    probes = json.loads((exported / "verification" / "probes.json").read_text())["probes"]

    assert len(probes) == 8
    assert probes[0] == {"question": "What about The axe is green2?", "gold": "The axe is green2."}
