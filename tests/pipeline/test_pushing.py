"""Uploads, to a hub that runs on this machine."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import ftkit
from tests.export.small_exports import write_exports
from tests.tiny import tiny_model_folder, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A merged export as `ftkit verify` left it, and one without its proof."""
    folder = tmp_path_factory.mktemp("exports")
    tokenizer = tiny_tokenizer()
    base = tiny_model_folder(folder / "base", tokenizer=tokenizer)
    write_exports(folder, base, tokenizer)
    passed = {"passed": True, "checks": [{"name": "loads", "passed": True}]}
    for kind in ("adapter", "merged"):
        (folder / kind / "verify.json").write_text(json.dumps(passed))
    unproven = Path(shutil.copytree(folder / "merged", folder / "unproven"))
    (unproven / "verify.json").write_text(
        json.dumps({"passed": False, "checks": [{"name": "loads", "passed": False}]})
    )
    changed = Path(shutil.copytree(folder / "merged", folder / "changed"))
    (changed / "config.json").write_text("{}")
    return folder


def _words(exports: Path, name: str, *more: str) -> list[str]:
    return [str(exports / name), "--push", "owner/model", *more]


@pytest.fixture(scope="module")
def answers(exports):
    """What came of each push, by name; one process for all, as starting it takes seconds."""
    public = {"owner/model": {"private": False, "files": [".gitattributes"]}}
    strange = {"owner/model": {"private": True, "files": ["old-00001.safetensors"]}}
    requests = {
        "first": {"words": _words(exports, "merged", "--json"), "stands there": {}},
        "again": {"words": _words(exports, "merged")},
        "public": {"words": _words(exports, "merged", "--public", "--json"), "stands there": {}},
        "adapter": {"words": _words(exports, "adapter"), "stands there": {}},
        "a public repository": {"words": _words(exports, "merged"), "stands there": public},
        "other files": {"words": _words(exports, "merged"), "stands there": strange},
        "failed": {"words": _words(exports, "unproven"), "stands there": {}},
        "changed": {"words": _words(exports, "changed"), "stands there": {}},
        "no right": {"words": _words(exports, "merged"), "stands there": {}, "token": "hf_reader"},
        "no name": {"words": [str(exports / "merged"), "--push", "model"], "stands there": {}},
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.hub_to_push", json.dumps(list(requests.values()))],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(requests, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_a_push_makes_a_private_repository_with_every_byte_of_the_export_and_its_card(answers, exports):
    found = answers["first"]

    assert found["code"] == 0, found["err"]
    repository = found["repositories"]["owner/model"]
    uploaded = {
        name: base64.b64decode(text) for name, text in repository["files"].items() if name != ".gitattributes"
    }
    folder = exports / "merged"
    assert uploaded == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert {"README.md", "manifest.json", "verify.json"} <= set(uploaded)
    printed = json.loads(found["out"])["push"]
    assert repository["private"] is printed["private"] is True
    assert printed["files"] == len(uploaded)
    assert printed["bytes"] == sum(map(len, uploaded.values()))


def test_what_goes_where_is_said_before_anything_is_sent(answers):
    first = answers["first"]["err"].splitlines()[0]

    assert "uploading" in first
    assert "/owner/model, private" in first


def test_the_same_export_may_be_pushed_again(answers):
    assert answers["again"]["code"] == 0, answers["again"]["err"]
    assert answers["again"]["out"].strip().endswith("b" * 40)


def test_a_repository_is_public_only_when_asked(answers):
    assert answers["public"]["repositories"]["owner/model"]["private"] is False
    refused = answers["a public repository"]
    assert refused["code"] == 2
    assert "--public" in refused["err"]
    assert list(refused["repositories"]["owner/model"]["files"]) == [".gitattributes"]


def test_a_repository_with_other_files_is_left_alone(answers):
    assert answers["other files"]["code"] == 2
    assert "old-00001.safetensors" in answers["other files"]["err"]
    assert not [one for one in answers["other files"]["asked"] if one.startswith("POST")]


@pytest.mark.parametrize(("name", "because"), [("failed", "did not pass"), ("changed", "config.json")])
def test_what_did_not_pass_or_changed_since_never_reaches_the_hub(answers, name, because):
    assert answers[name]["code"] == 5
    assert because in answers[name]["err"]
    assert answers[name]["asked"] == []


def test_an_adapter_that_names_a_folder_of_this_machine_says_so(answers):
    assert answers["adapter"]["code"] == 0, answers["adapter"]["err"]
    assert "names the base by a folder of this machine" in answers["adapter"]["err"]


def test_a_refusal_of_the_hub_is_one_line_with_what_to_check(answers):
    assert answers["no right"]["code"] == 2
    assert "HF_TOKEN" in answers["no right"]["err"]
    assert "Traceback" not in answers["no right"]["err"]
    assert answers["no name"]["code"] == 2
    assert "OWNER/NAME" in answers["no name"]["err"]
    assert answers["no name"]["asked"] == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "FTKIT_OFFLINE"])
def test_a_closed_hub_is_not_uploaded_to(exports, monkeypatch, variable):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    outcome = ftkit("export", *_words(exports, "merged"))

    assert outcome.code == 2
    assert f"{variable} closes the hub" in outcome.err


def test_the_hubs_own_files_do_not_fail_a_downloaded_export(exports, tmp_path):
    from ftkit.export.manifest import file_problems, read_manifest

    folder = Path(shutil.copytree(exports / "merged", tmp_path / "download"))
    (folder / ".gitattributes").write_text("")
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download" / "config.json.metadata").write_text("")

    assert file_problems(folder, read_manifest(folder)) == []
    (folder / ".cache" / "other").write_text("")
    assert [problem.where for problem in file_problems(folder, read_manifest(folder))] == [".cache/other"]
