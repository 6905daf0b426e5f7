"""Bad input: a clear error, the exit code of the contract, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.cli.running import ftkit, start_ftkit, write_recipe
from tests.tiny import tiny_model_folder, tiny_tokenizer, write_rows

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def folder(tmp_path, tiny_llama):
    write_rows(tmp_path / "rows.jsonl", 24)
    write_recipe(tmp_path, tiny_llama)
    return tmp_path


@pytest.mark.parametrize(
    ("bad", "place", "words"),
    [
        ("", "rows.jsonl", "has no rows"),
        (GOOD + "{not json}\n", "rows.jsonl:2", "not valid JSON"),
        (GOOD + '{"messages": [{"role": "user", "content": "a"}]}\n', "rows.jsonl:2", "no assistant turn"),
        (GOOD + GOOD.replace("assistant", "asistant"), "rows.jsonl:2", "'asistant' is not one of"),
        (GOOD + GOOD.replace('"b"', '""'), "rows.jsonl:2", "is missing or empty"),
        (GOOD + "\xff\xfe\n", "rows.jsonl:2", "not UTF-8"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_written(folder, bad, place, words):
    (folder / "rows.jsonl").write_bytes(bad.encode("latin-1"))

    outcome = ftkit("train", folder / "recipe.yaml")

    assert outcome.code == 3, outcome.err
    assert place in outcome.err
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (folder / "run").exists()


def test_a_missing_data_file_is_named(folder):
    outcome = ftkit("train", folder / "recipe.yaml", "data=nowhere.jsonl")

    assert outcome.code == 3
    assert "nowhere.jsonl: no such file" in outcome.err


def test_targets_that_match_nothing_list_what_exists(folder):
    outcome = ftkit("train", folder / "recipe.yaml", "method.target_modules=[q_prj]")

    assert outcome.code == 2
    assert "'q_prj' matches no layer" in outcome.err
    assert "Did you mean 'q_proj'?" in outcome.err
    assert not (folder / "run").exists()


def test_an_export_that_the_method_cannot_give_is_refused_when_the_recipe_is_read(folder):
    outcome = ftkit("train", folder / "recipe.yaml", "recipe=full", "export=[adapter]")

    assert outcome.code == 2
    assert "'adapter'" in outcome.err


def test_chat_data_without_a_template_is_refused_with_names_to_choose(folder, tmp_path):
    bare = tiny_model_folder(tmp_path / "bare", tokenizer=tiny_tokenizer(template=None))

    refused = ftkit("train", folder / "recipe.yaml", f"model={bare}")
    accepted = ftkit("check", folder / "recipe.yaml", f"model={bare}", "model.chat_template=chatml")

    assert refused.code == 3
    assert "chatml" in refused.err
    assert accepted.code == 0, accepted.err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "has no weights"),
        (lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"), "pickled"),
        (lambda model: os.truncate(model / "model.safetensors", 5000), "truncated"),
        (lambda model: (model / "config.json").write_text('{"auto_map": {"AutoConfig": "x.Y"}}'), "own code"),
    ],
    ids=["no weights", "pickle", "truncated", "remote code"],
)
def test_an_unusable_base_is_refused(folder, tmp_path, damage, words):
    model = tiny_model_folder(tmp_path / "damaged")
    damage(model)

    outcome = ftkit("train", folder / "recipe.yaml", f"model={model}")

    assert outcome.code == 7, outcome.err
    assert words in outcome.err
    assert not (folder / "run").exists()


def test_an_output_folder_with_something_in_it_is_left_alone(folder):
    (folder / "run").mkdir()
    (folder / "run" / "thesis.txt").write_text("mine")

    outcome = ftkit("train", folder / "recipe.yaml")

    assert outcome.code == 2
    assert [path.name for path in (folder / "run").iterdir() if path.name != ".lock"] == ["thesis.txt"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory, tiny_llama):
    """The folder of a run that was killed, and what other processes were told while it worked."""
    folder = tmp_path_factory.mktemp("killed")
    write_rows(folder / "rows.jsonl", 24)
    process = start_ftkit("train", write_recipe(folder, tiny_llama), "train.epochs=400")
    try:
        _wait_for(folder / "run" / "metrics.jsonl")
        refused = ftkit("train", folder / "recipe.yaml"), ftkit("resume", folder / "run")
    finally:
        process.kill()
        process.communicate()
    return folder, refused


def test_a_second_process_in_the_same_folder_is_refused_while_the_first_works(killed):
    _, (trained, resumed) = killed

    assert trained.code == resumed.code == 2
    assert "another process" in trained.err
    assert "another process" in resumed.err


def test_ctrl_c_saves_says_how_to_go_on_and_resume_finishes(folder):
    process = start_ftkit("train", folder / "recipe.yaml", "train.epochs=20", "--quiet")
    _wait_for(folder / "run" / "checkpoints" / "step-00000004")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert f"ftkit resume {folder / 'run'}" in err
    resumed = ftkit("resume", folder / "run", "--json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["steps"] == json.loads(resumed.out)["total_steps"]
    steps = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [line["step"] for line in steps if "loss" in line]
    assert logged == list(range(1, len(logged) + 1))


def test_a_resume_after_the_recipe_or_the_data_changed_is_refused(killed):
    folder, _ = killed
    recipe = folder / "run" / "recipe.yaml"
    text = recipe.read_text()

    recipe.write_text(text.replace("rank: 16", "rank: 8"))
    changed_recipe = ftkit("resume", folder / "run")
    recipe.write_text(text)
    write_rows(folder / "rows.jsonl", 25)
    changed_data = ftkit("resume", folder / "run")

    assert changed_recipe.code == changed_data.code == 2
    assert "was changed since the run began: method.rank: was 16, is 8" in changed_recipe.err
    assert "changed since the run began: data: " in changed_data.err
    assert "rows.jsonl: 24 rows (sha256 " in changed_data.err
    assert ") then, 25 rows (sha256 " in changed_data.err


def test_no_disk_space_is_said_before_training(folder, monkeypatch):
    from collections import namedtuple

    import ftkit
    from ftkit.errors import ResourceError

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("ftkit.files.shutil.disk_usage", lambda _: usage(10**9, 10**9, 1000))
    recipe = ftkit.load_recipe(folder / "recipe.yaml")

    with pytest.raises(ResourceError, match="of disk") as caught:
        ftkit.run(recipe)
    assert caught.value.exit_code == 4
    assert not (folder / "run").exists()


def _wait_for(path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)
