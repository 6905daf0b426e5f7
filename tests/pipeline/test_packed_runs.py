"""Whether a run packs is decided once, said in result.json, and decided alike when the run is resumed."""

from __future__ import annotations

import json
import os
import signal

import pytest

import ftkit
from ftkit.errors import Interrupted, RecipeError
from ftkit.pipeline import run as line
from ftkit.train import objective as objective_module
from ftkit.train.isolation import PROVEN, PROVEN_BUT_FOR_ROUNDING
from tests.tiny import write_rows

RECIPES = {
    "lora": ftkit.LoRARecipe,
    "prompt": ftkit.PromptRecipe,
    "full": ftkit.FullRecipe,
    "int8": lambda **settings: ftkit.QLoRARecipe(method={"quantization": "int8"}, **settings),
}


def recipe_of(folder, model, kind="lora", *, packing="auto", **train):
    return RECIPES[kind](
        model=str(model),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2, "packing": packing},
        train={"learning_rate": 1e-2, "epochs": 2.0, "batch_size": 8, **train},
        output=str(folder / "run"),
        export=[],
    )


def watch_passes(monkeypatch, *, interrupt_at=None):
    """Whether each forward pass of training was over a pack."""
    packed, real = [], objective_module.summed_loss

    def watched(model, batch):
        packed.append("position_ids" in batch)
        if len(packed) == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return real(model, batch)

    monkeypatch.setattr(objective_module, "summed_loss", watched)
    return packed


@pytest.mark.parametrize(
    ("kind", "packing", "train", "packs", "reason"),
    [
        ("lora", "auto", {}, True, PROVEN),
        ("full", True, {}, True, PROVEN),
        ("int8", "auto", {}, True, PROVEN_BUT_FOR_ROUNDING),
        ("lora", False, {}, False, "data.packing is false"),
        ("lora", "auto", {"micro_batch_size": 4}, False, "train.micro_batch_size"),
        ("prompt", "auto", {}, False, "learned positions"),
    ],
)
def test_the_result_says_whether_it_packed_and_why(
    kind, packing, train, packs, reason, tmp_path, tiny_llama, monkeypatch
):
    passes = watch_passes(monkeypatch)

    finished = ftkit.run(recipe_of(tmp_path, tiny_llama, kind, packing=packing, **train), quiet=True)

    assert set(passes) == {packs}
    assert finished.result["packing"] is packs
    assert reason in finished.result["packing_reason"]
    assert (finished.result["micro_batch_size"] is None) is packs
    assert json.loads((finished.folder / "result.json").read_text())["packing"] is packs


def test_packing_that_cannot_be_had_is_refused_before_anything_is_trained(tmp_path, tiny_llama, monkeypatch):
    passes = watch_passes(monkeypatch)
    monkeypatch.setattr(line, "isolates", lambda model, compute: "it leaks")

    with pytest.raises(RecipeError, match=r"data\.packing: true is not possible: it leaks"):
        ftkit.run(recipe_of(tmp_path, tiny_llama, packing=True), quiet=True)

    assert passes == []


def test_a_packed_run_that_is_interrupted_goes_on_packed_to_the_same_end(tmp_path, tiny_llama, monkeypatch):
    whole = ftkit.run(recipe_of(tmp_path / "whole", tiny_llama), quiet=True)
    with monkeypatch.context() as patched:
        watch_passes(patched, interrupt_at=2)
        with pytest.raises(Interrupted):
            ftkit.run(recipe_of(tmp_path / "halted", tiny_llama), quiet=True)

    resumed = ftkit.resume(tmp_path / "halted" / "run", quiet=True)

    assert resumed.result["packing"] is True
    assert resumed.result["losses"] == whole.result["losses"]
