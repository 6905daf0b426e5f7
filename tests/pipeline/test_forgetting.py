"""Forgetting in whole runs: measured before and after, over an interruption, and lessened by replay."""

from __future__ import annotations

import json

import pytest

import ftkit
from ftkit.errors import DataError, OutputError
from tests.tiny import write_rows

OLD = ["abc abc abc abc abc abc", "abc abc abc abc", "abc abc abc abc abc abc abc abc"]


@pytest.fixture
def general(tmp_path):
    path = tmp_path / "general.jsonl"
    rows = [{"text": text} for text in OLD] + [{"query": "Which?", "choices": ["abc", "xyz"], "gold": 0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder, model, general, output="run", **data):
    return ftkit.FullRecipe(
        model=str(model),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": None, **data},
        train={"learning_rate": 5e-3, "epochs": 2.0, "batch_size": 8},
        evaluate={"samples": 0, "metrics": (), "forgetting": str(general)},
        export=[],
        output=str(folder / output),
    )


def test_what_was_lost_stands_in_the_result_and_on_the_page(tmp_path, tiny_llama, general):
    finished = ftkit.run(recipe(tmp_path, tiny_llama, general), quiet=True)
    found = finished.result["forgetting"]
    assert found["kl_to_base"] > 0
    assert found["before"].keys() == found["after"].keys()
    assert found["before"]["bits_per_byte"] != found["after"]["bits_per_byte"]
    page = (finished.folder / "report.html").read_text()
    assert "What was lost elsewhere" in page and "bits per byte" in page
    assert not list(finished.folder.glob("*.safetensors"))


def test_replay_of_general_text_keeps_more_of_it(tmp_path, tiny_llama, general):
    replayed = tmp_path / "old.jsonl"
    replayed.write_text("".join(json.dumps({"text": text}) + "\n" for text in OLD * 8))
    without = ftkit.run(recipe(tmp_path, tiny_llama, general, "without"), quiet=True).result["forgetting"]
    replay = {"path": str(replayed), "format": "text", "share": 0.5}
    kept = ftkit.run(recipe(tmp_path, tiny_llama, general, "with", replay=replay), quiet=True).result["forgetting"]
    assert kept["before"] == without["before"]
    assert kept["after"]["bits_per_byte"] < without["after"]["bits_per_byte"]


def test_files_that_changed_since_the_base_was_measured_are_refused(tmp_path, tiny_llama, general):
    run = tmp_path / "run"
    ftkit.run(recipe(tmp_path, tiny_llama, general), quiet=True)
    (run / "result.json").unlink()
    general.write_text(json.dumps({"text": "another text"}) + "\n")
    with pytest.raises(OutputError, match=r"evaluate\.forgetting changed"):
        ftkit.resume(run, quiet=True)


def test_a_bad_file_is_named_before_anything_is_trained(tmp_path, tiny_llama, general):
    general.write_text('{"nothing": 1}\n')
    with pytest.raises(DataError, match=r"general\.jsonl"):
        ftkit.run(recipe(tmp_path, tiny_llama, general), quiet=True)
    assert not (tmp_path / "run").exists()
