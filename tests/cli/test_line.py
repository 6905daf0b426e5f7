"""The whole line through the command, on a tiny model."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from tests.cli.running import ftkit, write_recipe
from tests.tiny import tiny_model_folder, write_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: (folder of everything, what train --json printed)."""
    folder = tmp_path_factory.mktemp("line")
    model = tiny_model_folder(folder / "model")
    write_rows(folder / "rows.jsonl", 40)
    outcome = ftkit("train", write_recipe(folder, model), "--json")
    assert outcome.code == 0, outcome.err
    return folder, json.loads(outcome.out)


def test_train_writes_the_run_folder_of_the_contract(trained):
    folder, _ = trained
    run = folder / "run"

    for name in ("recipe.yaml", "data_report.json", "metrics.jsonl", "result.json", "report.html"):
        assert (run / name).is_file(), name
    for kind in ("adapter", "merged"):
        for name in ("README.md", "manifest.json", "verify.json", "tokenizer.json", "generation_config.json"):
            assert (run / "export" / kind / name).is_file(), (kind, name)
    assert list((run / "checkpoints").glob("step-*"))


def test_result_json_has_the_keys_of_the_contract(trained):
    folder, printed = trained
    result = json.loads((folder / "run" / "result.json").read_text())

    assert {
        "steps", "tokens", "first_loss", "last_loss", "wall_s", "tokens_per_s", "peak_memory_bytes", "versions",
        "trainable_parameters", "total_parameters", "exports", "metrics", "losses",
    } <= set(result)  # fmt: skip
    assert set(result["metrics"]) == {"before", "after"}
    trained_rows = json.loads((folder / "run" / "data_report.json").read_text())["trained"]
    assert printed["steps"] == result["steps"] == math.ceil(trained_rows / 8)
    assert 0 < result["trainable_parameters"] < result["total_parameters"]
    assert result["peak_memory_bytes"] > 100e6


def test_the_first_line_of_the_metrics_is_the_untouched_base(trained):
    folder, _ = trained
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]

    assert lines[0]["step"] == 0
    assert lines[0]["validation_loss"] > 0
    steps = json.loads((folder / "run" / "result.json").read_text())["steps"]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, steps + 1))
    assert lines[-1]["step"] == steps
    assert "validation_loss" in lines[-1]
    assert {"epoch", "learning_rate", "grad_norm", "tokens", "supervised_tokens", "tokens_per_s", "wall_s",
            "peak_memory_bytes"} <= set(lines[1])  # fmt: skip


def test_the_data_report_adds_up(trained):
    folder, _ = trained
    report = json.loads((folder / "run" / "data_report.json").read_text())

    assert report["rows_in"] == 40 == report["trained"] + report["validation"] + sum(report["dropped"].values())


def test_verify_passes_and_prints_verify_json(trained):
    folder, _ = trained
    outcome = ftkit("verify", folder / "run" / "export" / "adapter", "--json")

    assert outcome.code == 0, outcome.err
    names = [check["name"] for check in json.loads(outcome.out)["checks"]]
    assert {
        "files", "loads", "tokenizer", "chat_template", "logits_match_trained", "differs_from_base",
        "greedy_text_match",
    } <= set(names)  # fmt: skip


def test_generate_and_eval_agree_between_run_adapter_and_merged(trained):
    folder, _ = trained
    run = folder / "run"
    answers, losses = [], []
    for target in (run, run / "export" / "adapter", run / "export" / "merged"):
        answer = ftkit("generate", target, "--prompt", "What colour is thing 3?", "--max-new-tokens", "8", "--json")
        answers.append({**json.loads(answer.out), "wall_s": None})
        loss = ftkit("eval", target, "--data", folder / "rows.jsonl", "--json")
        losses.append(json.loads(loss.out)["loss"])

    assert answers[0] == answers[1] == answers[2]
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)
    assert losses[2] == pytest.approx(losses[0], abs=2e-3)


def test_generate_answers_a_file_of_prompts(trained):
    folder, _ = trained
    prompts = folder / "prompts.txt"
    prompts.write_text("What colour is thing 1?\nWhat colour is thing 2?\n")

    found = json.loads(ftkit("generate", folder / "run", "--input", prompts, "--max-new-tokens", "4", "--json").out)

    assert len(found) == 2
    assert {"text", "tokens", "finish_reason", "wall_s"} == set(found[0])


def test_resume_of_a_finished_run_says_so(trained):
    folder, _ = trained
    outcome = ftkit("resume", folder / "run")

    assert outcome.code == 0
    assert "finished" in outcome.err


def test_a_second_train_into_the_same_folder_is_refused(trained):
    folder, _ = trained
    before = sorted(path.name for path in (folder / "run").iterdir())
    outcome = ftkit("train", folder / "recipe.yaml")

    assert outcome.code == 2
    assert "not empty" in outcome.err
    assert sorted(path.name for path in (folder / "run").iterdir()) == before


def test_export_writes_another_dtype_verified(trained):
    folder, _ = trained
    outcome = ftkit(
        "export", folder / "run", "--to", "merged", "--dtype", "bfloat16", "-o", folder / "half", "--json"
    )

    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["passed"]
    assert json.loads((folder / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_check_prints_what_training_would_do(trained, tmp_path):
    folder, _ = trained
    found = json.loads(ftkit("check", folder / "recipe.yaml", f"output={tmp_path / 'new'}", "--json").out)

    assert found["steps"] == json.loads((folder / "run" / "result.json").read_text())["steps"]
    supervised = "".join(part["text"] for part in found["example"]["stretches"] if part["supervised"])
    assert supervised.endswith("<|im_end|>")
    assert found["warnings"] == []
    assert not (tmp_path / "new").exists()


def test_an_adapter_on_a_base_with_another_digest_is_refused(trained, tmp_path):
    folder, _ = trained
    other = tiny_model_folder(tmp_path / "other", seed=1)
    copy = shutil.copytree(folder / "run" / "export" / "adapter", tmp_path / "adapter")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))

    outcome = ftkit("generate", copy, "--prompt", "hi")

    assert outcome.code == 7
    assert "was trained on" in outcome.err
    assert ftkit("verify", copy).code == 5
