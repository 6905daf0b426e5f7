"""Bundles through the command: packed from a run, carried to a machine without its base and without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import ftkit, start_ftkit, write_recipe
from tests.tiny import tiny_model_folder, write_rows

PROMPT = "What colour is thing 3?"
ROOT = Path(__file__).resolve().parents[2]
NO_NETWORK = """
import sys
def _closed(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"{event} was called with {args[1:]}")
sys.addaudithook(_closed)
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A run, bundles of its adapter, and its answer; the base has a licence and a card, the data a source."""
    folder = tmp_path_factory.mktemp("bundles")
    base = tiny_model_folder(folder / "the base")
    (base / "LICENSE").write_text("Take it.\n")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    (base / "optimizer.pt").write_bytes(b"not a model file")
    write_rows(folder / "rows.jsonl", 40)
    (folder / "SOURCE.txt").write_text("Made up.\n")
    outcome = ftkit("train", write_recipe(folder, base), "export=[adapter]", "train.epochs=4", "--quiet")
    assert outcome.code == 0, outcome.err
    export = folder / "run" / "export" / "adapter"
    made = ftkit("export", export, "--bundle", "-o", folder / "one.tar", "--data-licence", "CC0-1.0", "--json")
    assert made.code == 0, made.err
    without = ftkit("export", export, "--bundle", "--without-base", "-o", folder / "bare.tar.gz")
    assert without.code == 0, without.err
    answer = ftkit("generate", export, "--prompt", PROMPT, "--max-new-tokens", "8")
    assert len(answer.out.strip()) > 5, "an empty answer would equal anything"
    return folder, json.loads(made.out), answer.out.strip()


@pytest.fixture(scope="module")
def unpacked(packed):
    folder, _, _ = packed
    outcome = ftkit("unbundle", folder / "one.tar", "-o", folder / "unpacked", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["files"]
    return folder / "unpacked"


def test_a_new_export_of_the_run_in_another_process_makes_the_very_same_bundle(packed):
    folder, printed, _ = packed
    words = ("export", folder / "run", "--to", "adapter", "--bundle", "-o", folder / "two.tar", "--json")
    process = start_ftkit(*words, "--data-licence", "CC0-1.0")  # and another order of its sets
    out, err = process.communicate(timeout=500)

    assert process.returncode == 0, err
    assert json.loads(out)["sha256"] == printed["sha256"]
    assert (folder / "two.tar").read_bytes() == (folder / "one.tar").read_bytes()
    assert not list(folder.glob(".ftkit-bundle-*"))


def test_a_bundle_holds_artefact_base_terms_sbom_and_guide_and_nothing_else(packed, unpacked):
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    manifest = json.loads((unpacked / "model" / "manifest.json").read_text())

    assert {name for name in names if name.startswith("model/")} == {
        "model/manifest.json", *(f"model/{name}" for name in manifest["files"])
    }  # fmt: skip
    assert {name for name in names if not name.startswith("model/")} == {
        "BUNDLE.json", "run.md", "sbom.cdx.json", "licences/README.md", "licences/base/LICENSE",
        "licences/data/1/SOURCE.txt", "base/LICENSE", "base/README.md", "base/chat_template.jinja",
        "base/config.json", "base/generation_config.json", "base/model.safetensors", "base/tokenizer.json",
        "base/tokenizer_config.json",
    }  # fmt: skip
    assert (unpacked / "model" / "LICENSE.base").read_text() == "Take it.\n"
    assert packed[1]["base_licence"] == manifest["base"]["licence"] == "mit"
    assert packed[1]["data_licence"] == "CC0-1.0"
    assert "CC0-1.0." in (unpacked / "licences" / "README.md").read_text()


def test_a_bundle_is_verified_as_it_is(packed):
    folder, _, _ = packed
    outcome = ftkit("verify", folder / "one.tar", "--json")

    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [check["name"] for check in found["checks"][:3]] == ["bundle", "files", "base"]
    assert found["passed"]


def _carried(packed, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The archive as BUNDLE in a folder of its own, and an environment that knows nothing of where it was made."""
    place = tmp_path / "there"
    place.mkdir()
    shutil.copyfile(packed[0] / "one.tar", place / "BUNDLE")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sitecustomize.py").write_text(NO_NETWORK)
    (tools / "ftkit").write_text(f'#!/bin/sh\nexec {sys.executable} -m ftkit "$@"\n')
    (tools / "ftkit").chmod(0o755)
    return place, {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": f"{tools}:{ROOT}",
        "FTKIT_CACHE": str(tmp_path / "cache"), "FTKIT_OFFLINE": "1",
    }  # fmt: skip


@pytest.mark.slow
def test_the_commands_of_run_md_work_without_a_network_where_the_base_is_gone(packed, unpacked, tmp_path):
    folder, _, wanted = packed
    guide = (unpacked / "run.md").read_text()
    commands = re.search(r"```sh\n(.*?)```", guide, re.DOTALL)[1].replace("'Hello'", f"'{PROMPT}' --max-new-tokens 8")
    python = re.search(r"```python\n(.*?)```", guide, re.DOTALL)[1] + (
        f"chat = [{{'role': 'user', 'content': {PROMPT!r}}}]\n"
        "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt')['input_ids']\n"
        "answer = model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1]:]\n"
        "print('PEFT:' + tokenizer.decode(answer, skip_special_tokens=True).strip())\n"
    )
    place, environment = _carried(packed, tmp_path)
    (place / "plain.py").write_text(python)
    script = f"set -e\n{commands}echo ---\n{sys.executable} plain.py\n"
    # A network namespace has not even a loopback that is up; where it is not allowed the audit hook stands alone.
    apart = ["unshare", "-rn"] if subprocess.run(["unshare", "-rn", "true"], check=False).returncode == 0 else []
    hidden = [folder / "the base", folder / "run"]
    for path in hidden:
        path.rename(path.with_name(f"{path.name} moved"))
    try:
        done = subprocess.run(
            [*apart, "bash", "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
    finally:
        for path in hidden:
            path.with_name(f"{path.name} moved").rename(path)

    assert done.returncode == 0, done.stderr
    assert len(commands.splitlines()) == 3
    assert "✗" not in done.stdout
    assert "✓ logits_match_trained" in done.stdout
    by_ftkit, by_peft = done.stdout.split("---\n")
    assert by_ftkit.strip().endswith(wanted)
    assert by_peft.strip() == f"PEFT:{wanted}"


def test_the_namespace_and_the_hook_do_close_the_network(packed, tmp_path):
    place, environment = _carried(packed, tmp_path)
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )

    assert "PermissionError: socket." in done.stderr


def test_a_changed_base_in_a_bundle_is_noticed(packed, unpacked, tmp_path):
    copy = Path(shutil.copytree(unpacked, tmp_path / "copy"))
    other = tiny_model_folder(tmp_path / "other", seed=1)
    shutil.copyfile(other / "model.safetensors", copy / "base" / "model.safetensors")
    raw = bytearray((packed[0] / "one.tar").read_bytes())
    place = raw.index((unpacked / "base" / "model.safetensors").read_bytes()) + 5000
    raw[place] ^= 1
    (tmp_path / "changed.tar").write_bytes(raw)

    refused = ftkit("verify", tmp_path / "changed.tar", "--json")
    assert refused.code == 5
    assert "'base/model.safetensors' has other bytes than were packed" in refused.err
    assert ftkit("generate", copy / "model", "--base", copy / "base", "--prompt", "hi").code == 7
    assert ftkit("verify", copy / "model", "--base", copy / "base", "-q").code == 5


def test_a_bundle_without_its_base_takes_the_one_that_is_named(packed, tmp_path):
    folder, _, wanted = packed
    base = Path(shutil.copytree(folder / "the base", tmp_path / "elsewhere"))
    assert ftkit("unbundle", folder / "bare.tar.gz", "-o", tmp_path / "out").code == 0
    assert not (tmp_path / "out" / "base").exists()
    assert "--base FOLDER" in (tmp_path / "out" / "run.md").read_text()

    (folder / "the base").rename(folder / "gone")
    try:
        lost = ftkit("generate", tmp_path / "out" / "model", "--prompt", "hi")
        words = ("--base", base, "--prompt", PROMPT, "--max-new-tokens", "8")
        answer = ftkit("generate", tmp_path / "out" / "model", *words)
        verified = ftkit("verify", folder / "bare.tar.gz", "--base", base, "-q")
    finally:
        (folder / "gone").rename(folder / "the base")

    assert lost.code == 7
    assert "--base FOLDER" in lost.err
    assert answer.out.strip() == wanted
    assert verified.code == 0, verified.err


def test_an_export_that_did_not_pass_is_not_bundled(packed, tmp_path):
    folder, _, _ = packed
    export = Path(shutil.copytree(folder / "run" / "export" / "adapter", tmp_path / "adapter"))
    proof = json.loads((export / "verify.json").read_text())
    (export / "verify.json").write_text(json.dumps({**proof, "passed": False}))

    assert ftkit("export", export, "--bundle", "-o", tmp_path / "b.tar").code == 5
    (export / "verify.json").unlink()
    assert ftkit("export", export, "--bundle", "-o", tmp_path / "b.tar").code == 5
    (export / "verify.json").write_text(json.dumps(proof))
    (export / "generation_config.json").write_text("{}")
    changed = ftkit("export", export, "--bundle", "-o", tmp_path / "b.tar")

    assert changed.code == 5
    assert "generation_config.json" in changed.err
    assert not list(tmp_path.glob("*.tar"))


def test_a_signed_bundle_is_verified_with_its_key_only(packed, tmp_path):
    pytest.importorskip("model_signing", reason="pip install 'ftkit[signing]'")
    folder, printed, _ = packed
    for name in ("ours", "theirs"):
        subprocess.run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / f"{name}.pem"],
            check=True,
        )  # fmt: skip
        subprocess.run(
            ["openssl", "ec", "-in", tmp_path / f"{name}.pem", "-pubout", "-out", tmp_path / f"{name}.pub"],
            check=True, capture_output=True,
        )  # fmt: skip
    export, archive = folder / "run" / "export" / "adapter", tmp_path / "b.tar"
    words = ("--data-licence", "CC0-1.0", "--sign", tmp_path / "ours.pem", "--json")
    signed = ftkit("export", export, "--bundle", "-o", archive, *words)

    assert json.loads(signed.out)["sha256"] == printed["sha256"]  # the signature stands beside it
    assert json.loads(signed.out)["signature"] == f"{archive}.sig"
    checked = json.loads(ftkit("verify", archive, "--public-key", tmp_path / "ours.pub", "--json").out)
    assert checked["passed"]
    assert checked["checks"][0]["name"] == "signature"
    assert ftkit("verify", archive, "--public-key", tmp_path / "theirs.pub").code == 5
    assert ftkit("unbundle", archive, "-o", tmp_path / "out", "--public-key", tmp_path / "theirs.pub").code == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (["run", "--bundle", "-o", "b.tar"], "--to KIND"),
        (["run", "--to", "adapter"], "-o FOLDER is missing"),
        (["run", "-o", "new"], "--to KIND is missing"),
        (["run/export/adapter", "--bundle"], "-o FILE.tar is missing"),
        (["run/export/adapter", "--bundle", "-o", "b.zip"], "not named as an archive"),
        (["run/export/adapter", "--bundle", "-o", "one.tar"], "exists already"),
        (["run/export/adapter", "--bundle", "-o", "b.tar", "--to", "merged"], "is an export already"),
        (["run/export/adapter", "--bundle", "-o", "b.tar", "--sign", "absent.pem"], "no such key"),
        (["run/export", "--bundle", "-o", "b.tar"], "neither a run nor an export"),
        (["run/export/adapter", "--bundle", "-o", "b.tar", "--push", "owner/name"], "two things"),
        (["run/export/adapter", "--sign", "key.pem", "-o", "x"], "--sign: only for archives"),
        (["run/export/adapter", "--public", "-o", "x"], "--public is for uploads"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(packed, monkeypatch, words, because):
    monkeypatch.chdir(packed[0])
    outcome = ftkit("export", *words)

    assert outcome.code == 2
    assert because in outcome.err
    assert not Path("b.tar").exists()
    assert not Path("x").exists()
