"""``ftkit combine``: what it prints, and how it refuses."""

from __future__ import annotations

import json

import pytest

from tests.cli.running import ftkit
from tests.contract.cases import Case
from tests.export.small_exports import ADAPTER, write_exports
from tests.tiny import tiny_model_folder, tiny_tokenizer, write_rows


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("combine")
    base = tiny_model_folder(folder / "base")
    case = Case("lora", "lora", {"rank": 4, "alpha": 8})
    for name, steps in (("one", 3), ("other", 12)):
        write_exports(folder / name, base, tiny_tokenizer(), case=case, steps=steps, exports=ADAPTER)
        (folder / name / "adapter").rename(folder / f"{name}-adapter")
    return [folder / "one-adapter", folder / "other-adapter"]


def test_it_prints_what_each_task_lost_and_the_folder(pair, tmp_path):
    outcome = ftkit("combine", *pair, "--weights", "0.7,0.3", "--how", "ties", "-o", tmp_path / "both")

    assert outcome.code == 0, outcome.err
    head, one, other, lost, folder = outcome.out.splitlines()
    assert head == "adapter        weight  KL from it  KL base from it  same top token"
    assert one.split()[:2] == ["one-adapter", "0.7"]
    assert other.split()[:2] == ["other-adapter", "0.3"]
    assert lost.startswith("rank 8 loses ")
    assert folder == str(tmp_path / "both")
    assert ftkit("verify", tmp_path / "both").code == 0
    assert ftkit("generate", tmp_path / "both", "--prompt", "hello", "--max-new-tokens", "3").code == 0
    assert ftkit("eval", tmp_path / "both", "--data", write_rows(tmp_path / "rows.jsonl", 2)).code == 0


def test_json_is_one_document_with_the_combination_and_the_checks(pair, tmp_path):
    outcome = ftkit(
        "combine",
        *pair,
        "--weights=1,-0.5",
        "--to",
        "merged",
        "--dtype",
        "bfloat16",
        "-o",
        tmp_path / "both",
        "--json",
    )

    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["passed"]
    assert found["path"] == str(tmp_path / "both")
    assert [source["weight"] for source in found["combination"]["sources"]] == [1.0, -0.5]
    assert json.loads((tmp_path / "both" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--weights", "0.5;0.5"], "is not a list of numbers"),
        (["--weights", "0.5"], "weights: 1 for 2 adapters"),
        (["--weights", "0.5,0.5", "--how", "slerp"], "there is no 'slerp'"),
        (["--weights", "0.5,0.5", "--density", "0.5"], "linear drops nothing"),
    ],
)
def test_a_wrong_wish_ends_with_code_2_and_leaves_nothing(pair, tmp_path, words, reason):
    outcome = ftkit("combine", *pair, *words, "-o", tmp_path / "both")

    assert outcome.code == 2
    assert reason in outcome.err
    assert not (tmp_path / "both").exists()


def test_a_damaged_adapter_ends_with_code_5(pair, tmp_path):
    (pair[0] / "stray.bin").write_bytes(b"x")
    outcome = ftkit("combine", *pair, "--weights", "0.5,0.5", "-o", tmp_path / "both")
    (pair[0] / "stray.bin").unlink()

    assert outcome.code == 5
    assert "stray.bin: was not exported by ftkit" in outcome.err
