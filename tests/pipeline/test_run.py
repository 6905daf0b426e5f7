"""The whole line in one process, on tiny models: what must hold for every base and every end."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

import ftkit
from ftkit.errors import OutputError, TrainingStoppedError, UsageError, VerificationError
from ftkit.pipeline import run as line
from ftkit.pipeline.identity import as_it_began
from ftkit.pipeline.run_folder import RunFolder
from ftkit.train.checkpoint import newest_checkpoint
from tests.tiny import tiny_model_folder, tiny_tokenizer, write_rows

RECIPES = {"full": ftkit.FullRecipe, "lora": ftkit.LoRARecipe, "qlora": ftkit.QLoRARecipe}


def _recipe(folder, model, kind="lora", **train):
    return RECIPES[kind](
        model=str(model),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2},
        train={"learning_rate": 1e-2, "epochs": 1.0, "batch_size": 8, **train},
        output=str(folder / "run"),
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["full", "lora", "qlora"])
def test_every_recipe_exports_verified_whatever_the_base_is_stored_in(tmp_path, kind, dtype):
    model = tiny_model_folder(tmp_path / "model", dtype=dtype)

    finished = ftkit.run(_recipe(tmp_path, model, kind), quiet=True)

    assert [entry["passed"] for entry in finished.result["exports"]] == [True] * (1 if kind == "full" else 2)
    manifest = json.loads((finished.folder / "export" / "merged" / "manifest.json").read_text())
    assert manifest["dtype"] == dtype


def test_a_bfloat16_run_that_learns_nothing_fails_verification(tmp_path):
    model = tiny_model_folder(tmp_path / "model", dtype="bfloat16")

    with pytest.raises(VerificationError):
        ftkit.run(_recipe(tmp_path, model, max_steps=1).model_copy(
            update={"train": _recipe(tmp_path, model).train.model_copy(update={"learning_rate": 1e-12})}
        ), quiet=True)  # fmt: skip
    with pytest.raises(VerificationError):
        ftkit.resume(tmp_path / "run", quiet=True)


def test_a_base_with_a_weight_that_is_no_number_stops_before_anything_is_computed_with_it(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(TrainingStoppedError, match=r"base model is damaged: model\.layers\.1\.mlp\.up_proj\.weight"):
        ftkit.run(_recipe(tmp_path, model), quiet=True)
    assert not (tmp_path / "run" / "before.json").exists()


def test_one_step_is_enough_to_learn_something(tmp_path, tiny_llama):
    finished = ftkit.run(_recipe(tmp_path, tiny_llama, max_steps=1), quiet=True)

    assert finished.result["losses"]["validation_after"] != finished.result["losses"]["validation_before"]


def test_a_chosen_template_reaches_the_export_with_its_stop_token(tmp_path):
    bare = tiny_tokenizer(template=None)
    bare.eos_token = "<|endoftext|>"
    model = tiny_model_folder(tmp_path / "model", tokenizer=bare)
    config = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    recipe = _recipe(tmp_path, model)
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": "chatml"})})

    finished = ftkit.run(recipe, quiet=True)

    assert all(entry["passed"] for entry in finished.result["exports"])
    for kind in ("adapter", "merged"):
        written = json.loads((finished.folder / "export" / kind / "generation_config.json").read_text())
        assert written["eos_token_id"] == [2, 0]  # <|im_end|> was trained; the base's own stop is kept


def test_a_base_with_sampling_settings_exports_and_is_probed_greedily(tmp_path):
    model = tiny_model_folder(tmp_path / "model")
    config = json.loads((model / "generation_config.json").read_text())
    settings = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}
    (model / "generation_config.json").write_text(json.dumps({**config, **settings}))

    finished = ftkit.run(_recipe(tmp_path, model), quiet=True)

    assert all(entry["passed"] for entry in finished.result["exports"])


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_not_exported_from_an_older_one(tmp_path, tiny_llama):
    finished = ftkit.run(_recipe(tmp_path, tiny_llama, checkpoint_every=1), quiet=True)
    last = newest_checkpoint(finished.folder / "checkpoints")
    os.truncate(last / "trained.safetensors", 100)

    with pytest.raises(OutputError, match="damaged or gone"):
        ftkit.open_run(finished.folder).export("merged", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("moment", ["fit", "describe_trained", "finish_exports"])
def test_a_crash_at_any_stage_is_finished_by_resume_with_the_same_result(tmp_path, tiny_llama, monkeypatch, moment):
    whole = ftkit.run(_recipe(tmp_path / "whole", tiny_llama), quiet=True)

    def crash(*args, **kwargs):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(line, moment, crash)
        with pytest.raises(RuntimeError, match="power cut"):
            ftkit.run(_recipe(tmp_path / "cut", tiny_llama), quiet=True)
    resumed = ftkit.resume(tmp_path / "cut" / "run", quiet=True)

    assert resumed.result["losses"] == whole.result["losses"]
    steps = [entry["step"] for entry in resumed.metrics]
    assert steps == [entry["step"] for entry in whole.metrics]


@pytest.mark.parametrize("environment", [None, 5, {"threads": 10**9, "versions": []}, {"threads": 3, "versions": {}}])
def test_threads_are_those_of_the_beginning_and_afterwards_those_of_before(tmp_path, environment):
    (tmp_path / "run.json").write_text(json.dumps({"environment": environment}))
    before = torch.get_num_threads()
    good = isinstance(environment, dict) and environment["threads"] == 3

    with as_it_began(RunFolder(tmp_path)):
        assert torch.get_num_threads() == (3 if good else before)
    assert torch.get_num_threads() == before


def test_the_best_checkpoint_is_exported_when_asked_for(tmp_path, tiny_llama):
    course = {"epochs": 3.0, "validate_every": 1, "keep_last": 1, "keep_best": 1, "learning_rate": 0.3}
    run = ftkit.run(_recipe(tmp_path, tiny_llama, **course).model_copy(update={"export": ()}), quiet=True)
    validated = {line["step"]: line["validation_loss"] for line in run.metrics if "validation_loss" in line}
    best = min((step for step in validated if step > 0), key=validated.get)
    assert best < run.result["steps"], "such a rate is to overshoot, so that the best is not the last"

    export = run.export("adapter", tmp_path / "best", checkpoint="best")

    kept = load_file(tmp_path / "run" / "checkpoints" / f"step-{best:08d}" / "trained.safetensors")
    saved = load_file(export / "adapter_model.safetensors")
    assert all(torch.equal(value, kept[name.replace(".weight", ".default.weight")]) for name, value in saved.items())
    card = (export / "README.md").read_text()
    assert f"after step {best} of {run.result['steps']}" in card
    assert f"{validated[best]:.4g}" in card
    with pytest.raises(UsageError, match="has no such one"):
        run.export("adapter", tmp_path / "none", checkpoint="77")
    with pytest.raises(UsageError, match="needs an output"):
        run.export("adapter", checkpoint="best")


def test_two_exports_of_one_run_have_the_same_bytes(tmp_path, tiny_llama):
    run = ftkit.run(_recipe(tmp_path, tiny_llama), quiet=True)

    first, second = run.export("adapter"), run.export("adapter", tmp_path / "second")

    files = [json.loads((folder / "manifest.json").read_text())["files"] for folder in (first, second)]
    assert files[0] == files[1]
