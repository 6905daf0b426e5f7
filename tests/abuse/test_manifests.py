"""Manifests of exports, runs and bundles: nothing that they name is looked for outside their folder or on the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ftkit.errors import FtkitError, VerificationError
from ftkit.export.manifest import read_manifest
from ftkit.models import find
from ftkit.train.checkpoint import is_whole, newest_checkpoint
from tests.abuse.hostile import agree, change_json
from tests.cli.running import ftkit

FACTS = {"size": 1, "sha256": "0" * 64}
MANIFESTS = {
    "a file that climbs": ({"files": {"../../../victim": FACTS}}, "points outside its folder"),
    "a file from the root": ({"files": {"/etc/passwd": FACTS}}, "points outside its folder"),
    "a file that climbs from within": ({"files": {"verification/../../victim": FACTS}}, "points outside its folder"),
    "the folder itself": ({"files": {".": FACTS}}, "points outside its folder"),
    "a name with a zero byte": ({"files": {"a\0b": FACTS}}, "null byte"),
    "a name without end": ({"files": {"x" * 5000: FACTS}}, "too long"),
    "a list of files": ({"files": ["README.md"]}, "files: "),
    "a file without facts": ({"files": {"README.md": {}}}, "has no size and sha256"),
    "a file whose facts are a number": ({"files": {"README.md": 7}}, "files.README.md: "),
    "an unknown kind": ({"kind": "x"}, "no kind of export"),
    "a kind that is a list": ({"kind": ["adapter"]}, "kind: "),
    "a method that is a list": ({"method": [1]}, "method: "),
    "a base without a name": ({"base": {}}, "base: has no name and sha256"),
    "no base": ({"base": None}, "base: "),
    "tokens that are words": ({"added_tokens": ["x"]}, "added_tokens.0: "),
    "stops that are a word": ({"stop_tokens": "x"}, "stop_tokens: "),
    "a quantization that is a word": ({"quantization": "x"}, "quantization: "),
    "a dtype that is a list": ({"dtype": [1]}, "dtype: "),
    "a key that no ftkit wrote": ({"run_this": "x"}, "run_this"),
}
TEXTS = ["", "null", "[" * 100_000, "9" * 5000, '{"format_version": NaN}', '{"format_version": 1}', "\0"]


@pytest.mark.parametrize(("changes", "words"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_hostile_manifest_is_refused_and_says_where(changes, words, run):
    change_json(run.adapter / "manifest.json", **changes)

    with pytest.raises(VerificationError, match="manifest") as caught:
        read_manifest(run.adapter)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12])
def test_what_is_no_manifest_fails_the_verification(text, run):
    (run.adapter / "manifest.json").write_text(text)

    outcome = ftkit("verify", run.adapter)

    assert outcome.code == 5, outcome.err
    assert "manifest.json" in outcome.err


def test_a_manifest_that_is_a_pipe_is_not_waited_for(run):
    (run.adapter / "manifest.json").unlink()
    os.mkfifo(run.adapter / "manifest.json")

    with pytest.raises(VerificationError, match="is not a file"):
        read_manifest(run.adapter)


def test_a_listed_file_that_is_a_link_out_of_the_export_is_refused(run, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (run.adapter / "README.md").unlink()
    (run.adapter / "README.md").symlink_to(tmp_path / "secret")

    with pytest.raises(VerificationError, match=r"'README\.md' points outside its folder"):
        read_manifest(run.adapter)


def test_a_verify_json_that_is_a_link_does_not_carry_the_outcome_to_its_target(run, tmp_path):
    (tmp_path / "victim").write_text("mine")
    (run.adapter / "verify.json").unlink()
    (run.adapter / "verify.json").symlink_to(tmp_path / "victim")
    change_json(run.adapter / "manifest.json", added_tokens=[10**12])

    assert ftkit("verify", run.adapter).code == 5
    assert (tmp_path / "victim").read_text() == "mine"


def test_tokens_beyond_the_tokenizer_get_no_rows_in_memory(run):
    change_json(run.adapter / "manifest.json", added_tokens=[10**12])

    outcome = ftkit("verify", run.adapter, "--json")

    assert outcome.code == 5
    assert "adds tokens that its tokenizer does not have" in outcome.out


@pytest.fixture
def no_hub(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(find, "fetch_from_hub", lambda name, revision: asked.append(name) or pytest.fail(name))
    return asked


@pytest.mark.parametrize("name", ["someone/model", "../../../../etc", "/etc", 7, ["x"], None, "x" * 5000, "a\0b"])
def test_an_adapter_config_cannot_name_a_base_that_the_manifest_does_not(name, run, no_hub):
    change_json(run.adapter / "adapter_config.json", base_model_name_or_path=name)
    agree(run.adapter)

    outcome = ftkit("generate", run.adapter, "--prompt", "hi")

    assert outcome.code == 7, outcome.err
    assert "its base model" in outcome.err
    assert not no_hub


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "XLORA", "adapters": {"0": "someone/adapter"}}, "no type of adapter that ftkit loads"),
        ({"peft_type": ["LORA"]}, "no type of adapter that ftkit loads"),
        ({"r": 10**9}, "r: 1000000000 is more than any of its weights is long"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank_pattern.q_proj: 1000000000 is more than"),
        ({"lora_alpha": "x"}, "cannot be put onto this model"),
        ({"target_modules": ["none"]}, "cannot be put onto this model"),
    ],
    ids=["adapters of the hub", "a list for a type", "a huge rank", "a huge rank of one layer", "a word", "no layer"],
)
def test_a_hostile_adapter_config_is_a_model_error(changes, words, run, no_hub):
    change_json(run.adapter / "adapter_config.json", **changes)
    agree(run.adapter)

    outcome = ftkit("generate", run.adapter, "--prompt", "hi")

    assert outcome.code == 7, outcome.err
    assert words in outcome.err


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", "\0", '{"files": {"../../../result.json": {"size": 1, "sha256": "x"}}}',
             '{"files": {"/dev/zero": {"size": 0, "sha256": ""}}}', '{"files": {"a\\u0000b": {"size": 0}}}',
             '{"files": [1]}', '{"files": {}}'], ids=range(8)
)  # fmt: skip
def test_a_checkpoint_with_a_hostile_list_of_files_is_not_whole(text, run):
    checkpoint = newest_checkpoint(run.folder / "checkpoints")
    assert checkpoint is not None
    (checkpoint / "checkpoint.json").write_text(text)

    assert not is_whole(checkpoint)


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "null", "\0"], ids=["nested", "list", "null", "zero"])
@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_run_whose_own_files_are_garbage_is_refused_without_a_traceback(name, text, run):
    (run.folder / name).write_text(text)

    outcome = ftkit("resume", run.folder)

    assert outcome.code == 2, outcome.err


def test_a_bundle_in_a_bundle_of_a_hostile_manifest_is_refused(run, tmp_path):
    base = json.loads((run.adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert ftkit("export", run.adapter, "--bundle", "-o", tmp_path / "b.tar", "--base", base).code == 0
    assert ftkit("unbundle", tmp_path / "b.tar", "-o", tmp_path / "out").code == 0
    change_json(tmp_path / "out" / "model" / "manifest.json", files={"../../../victim": FACTS})

    assert ftkit("verify", tmp_path / "out" / "model").code == 5
    shutil.rmtree(tmp_path / "out")
    Path(tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:-5000])
    with pytest.raises(FtkitError):
        from ftkit.pipeline.bundling import unbundle

        unbundle(tmp_path / "b.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()
