"""The invariants on a tiny recipe: all hold, and each fails alone where its own fault is planted."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import time

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import ftkit
from ftkit.errors import RecipeError, ResourceError, TrainingStoppedError, UsageError, VerificationError
from ftkit.methods.peft_method import PeftMethod
from ftkit.pipeline import selftest as selftest_module
from ftkit.pipeline.selftest import selftest
from ftkit.pipeline.selftest_children import Processes
from ftkit.pipeline.selftest_gradients import Step, distance, rows_of_a_step, without_dropout
from ftkit.pipeline.selftest_process import work
from ftkit.pipeline.session import Session
from ftkit.train import objective as objective_module
from ftkit.train import trainer as trainer_module
from tests.cli.running import ftkit as command
from tests.cli.running import start_ftkit, write_recipe
from tests.tiny import write_rows
from tests.train.fitting import attached, examples

RECIPES = {"lora": ftkit.LoRARecipe, "full": ftkit.FullRecipe, "prefix": ftkit.PrefixRecipe}
DROPOUT = {"rank": 4, "dropout": 0.1}


class Killed(BaseException):
    """What no part of a run can catch, as it cannot catch a SIGKILL."""


class Inline:
    """The pieces in this process: starting Python and torch anew costs seconds, and faults can be planted."""

    def __init__(self):
        self.done = []
        self.seeds = itertools.count(1000)

    def call(self, verb, path):
        self.done.append(verb)
        seed = next(self.seeds)  # as in a new process, generators are in no known state
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        return work(verb, path)

    def kill_after(self, recipe, checkpoints, step):
        real = trainer_module.save_checkpoint

        def killing(target, **parts):
            real(target, **parts)
            if target.name == f"step-{step:08d}":
                raise Killed

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(trainer_module, "save_checkpoint", killing)
            with pytest.raises(Killed):
                self.call("run", recipe)


def recipe_of(folder, model, kind="lora", *, packing=False, method=None, export=(), **train):
    return RECIPES[kind](
        model=str(model),
        data={"train": str(write_rows(folder / "rows.jsonl")), "validation": 0.2, "packing": packing},
        train={"learning_rate": 1e-2, "epochs": 1.0, "batch_size": 8, **train},
        output=str(folder / "run"),
        export=list(export),
        **({} if method is None else {"method": method}),
    )


def passed(outcome):
    return {check.name: check.passed for check in outcome.checks}


def failures(outcome):
    return [check.name for check in outcome.failures]


def leftovers(folder):
    return list(folder.glob(".ftkit-selftest-*"))


@pytest.mark.parametrize(
    ("kind", "settings", "applies"),
    [
        ("lora", {"packing": True, "method": DROPOUT}, {"packing": True, "export": None}),
        ("full", {"export": ["merged"]}, {"packing": None, "export merged": True}),
        ("prefix", {"export": ["adapter"]}, {"packing": None, "export adapter": True}),
    ],
)
def test_all_invariants_hold(kind, settings, applies, tmp_path, tiny_llama):
    outcome = selftest(recipe_of(tmp_path, tiny_llama, kind, **settings), runs=Inline(), quiet=True)

    assert passed(outcome) == {"batching": True, "repeatability": True, "resume": True, **applies}
    outcome.require_passed()
    assert outcome.kept is None
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "run").exists()


def test_why_an_invariant_does_not_apply_is_said(tmp_path, tiny_llama):
    outcome = selftest(recipe_of(tmp_path, tiny_llama, batch_size=1), runs=Inline(), quiet=True)

    details = {check.name: check.detail for check in outcome.checks if check.passed is None}
    assert details == {
        "batching": "a step of this recipe has one row",
        "packing": "not packed: data.packing is false",
        "export": "the recipe has no exports",
    }


def mean_of_each_pass(monkeypatch):
    """Divide by the tokens of a pass instead of those of the step."""
    real = trainer_module._StepTrainer.compute_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        own = (inputs["labels"][:, 1:] != -100).sum()
        return real(self, model, inputs, return_outputs, own)

    monkeypatch.setattr(trainer_module._StepTrainer, "compute_loss", compute_loss)


def rows_that_see_each_other(monkeypatch):
    """Positions that run on through a pack."""
    real = objective_module.collate_packed

    def collate_packed(rows, **settings):
        step = real(rows, **settings)
        return {**step, "position_ids": torch.arange(step["input_ids"].shape[1]).unsqueeze(0)}

    monkeypatch.setattr(objective_module, "collate_packed", collate_packed)


def an_unseeded_draw(monkeypatch):
    real = Session.attach

    def attach(self, model):
        attached_model = real(self, model)
        with torch.no_grad():
            next(value for value in attached_model.parameters() if value.requires_grad).mul_(1 + random.random())
        return attached_model

    monkeypatch.setattr(Session, "attach", attach)


def a_resume_without(name):
    def plant(monkeypatch):
        monkeypatch.setattr(trainer_module, name, lambda *args: None)

    return plant


def another_weight_in_the_export(monkeypatch):
    real = PeftMethod.save

    def save(self, model, folder):
        real(self, model, folder)
        file = folder / "adapter_model.safetensors"
        weights = load_file(file)
        name = next(name for name in weights if "lora_B" in name)
        save_file(weights | {name: weights[name] + 0.1}, file, metadata={"format": "pt"})

    monkeypatch.setattr(PeftMethod, "save", save)


@pytest.mark.parametrize(
    ("plant", "settings", "fails", "figures"),
    [
        (mean_of_each_pass, {}, "batching", "gradients apart by"),
        (rows_that_see_each_other, {"packing": True}, "packing", "gradients apart by"),
        (an_unseeded_draw, {}, "repeatability", "trained.safetensors differs by up to"),
        (a_resume_without("load_optimizer"), {}, "resume", "optimizer.safetensors differs by up to"),
        (a_resume_without("load_random_states"), {"method": DROPOUT}, "resume", "random.safetensors differs"),
        (another_weight_in_the_export, {"export": ["adapter"]}, "export adapter", "max |Δlogit|"),
    ],
)
def test_a_fault_fails_its_own_invariant_alone(plant, settings, fails, figures, tmp_path, tiny_llama, monkeypatch):
    plant(monkeypatch)

    outcome = selftest(recipe_of(tmp_path, tiny_llama, **settings), runs=Inline(), quiet=True)

    assert failures(outcome) == [fails]
    with pytest.raises(VerificationError) as error:
        outcome.require_passed()
    assert str(error.value).startswith(f"{fails}: ")
    assert figures in str(error.value)
    assert leftovers(tmp_path) == [outcome.kept]
    assert (outcome.kept / "first" / "result.json").is_file()


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_ends_with_5_and_says_what_failed(as_json, tmp_path, tiny_llama, monkeypatch):
    rows_that_see_each_other(monkeypatch)
    monkeypatch.setattr(selftest_module, "Processes", lambda folder: Inline())
    write_rows(tmp_path / "rows.jsonl")
    recipe = write_recipe(tmp_path, tiny_llama)

    outcome = command("selftest", recipe, "export=[]", "--steps", "2", *(["--json"] if as_json else ["--quiet"]))

    assert outcome.code == 5
    if as_json:
        document = json.loads(outcome.out)
        assert [check["name"] for check in document["checks"] if check["passed"] is False] == ["packing"]
        assert (document["passed"], document["steps"]) == (False, 2)
    else:
        assert outcome.out == ""
        assert "packing: gradients apart by" in outcome.err


def test_the_python_call_raises_what_failed(tmp_path, tiny_llama, monkeypatch):
    mean_of_each_pass(monkeypatch)
    monkeypatch.setattr(selftest_module, "Processes", lambda folder: Inline())

    with pytest.raises(VerificationError, match="batching: gradients apart by"):
        ftkit.selftest(recipe_of(tmp_path, tiny_llama), steps=2, quiet=True)


def test_the_command_in_processes_of_its_own_leaves_a_full_output_alone(tmp_path, tiny_llama):
    write_rows(tmp_path / "rows.jsonl")
    recipe = write_recipe(tmp_path, tiny_llama)
    mine = tmp_path / "run" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")

    outcome = command("selftest", recipe, "export=[]")

    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.split()[:3] for line in lines[:4]] == [
        ["✓", "ok", name] for name in ("batching", "packing", "repeatability", "resume")
    ]
    assert "killed after step" in lines[3]
    assert "  packed: each example" in outcome.err  # what the processes say is passed on
    assert lines[4].startswith("- not applicable export ")
    assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
    assert leftovers(tmp_path) == []


def _words(process):
    with contextlib.suppress(psutil.Error):
        return str(process.cmdline())
    return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_takes_processes_and_folder_along(number, tmp_path, tiny_llama):
    write_rows(tmp_path / "rows.jsonl")
    process = start_ftkit("selftest", write_recipe(tmp_path, tiny_llama))
    deadline = time.monotonic() + 120
    while not (logs := list(tmp_path.glob(".ftkit-selftest-*/process-1.log"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert logs

    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert leftovers(tmp_path) == []
    # Those that were killed need a moment to be gone, more of it on a busy machine.
    _, alive = psutil.wait_procs([one for one in psutil.process_iter() if str(tmp_path) in _words(one)], timeout=30)
    assert alive == []


def test_an_error_of_the_run_itself_comes_through_and_leaves_nothing(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setattr("ftkit.pipeline.run.isolates", lambda model, compute: "it leaks")

    with pytest.raises(RecipeError, match="it leaks"):
        selftest(recipe_of(tmp_path, tiny_llama, packing=True), runs=Inline(), quiet=True)

    assert leftovers(tmp_path) == []


def child(tmp_path, monkeypatch, program):
    """A piece whose process runs this program instead; ``{answer}`` is its file."""
    monkeypatch.setattr("ftkit.pipeline.selftest_children.MODULE", ["-c", program])
    return Processes(tmp_path).call("run", tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("program", "error", "words"),
    [
        ("import os; os.kill(os.getpid(), 9)", ResourceError, "SIGKILL"),
        ("raise KeyError('odd')", RuntimeError, "odd"),
        (
            "import sys, json; json.dump({'error': {'kind': 'TrainingStoppedError', 'problems': "
            "[{'where': '', 'what': 'a NaN', 'fix': ''}]}}, open(sys.argv[3], 'w'))",
            TrainingStoppedError,
            "a NaN",
        ),
    ],
)
def test_a_process_that_ends_badly_is_told_as_what_it_was(program, error, words, tmp_path, monkeypatch):
    with pytest.raises(error, match=words):
        child(tmp_path, monkeypatch, program)


def test_a_run_that_cannot_be_killed_in_time_asks_for_more_steps(tmp_path, tiny_llama):
    class TooFast(Inline):
        def kill_after(self, recipe, checkpoints, step):
            self.call("run", recipe)

    with pytest.raises(UsageError, match="--steps 2: the run ends before it can be killed"):
        selftest(recipe_of(tmp_path, tiny_llama), steps=2, runs=TooFast(), quiet=True)


def test_one_step_is_too_few(tmp_path, tiny_llama):
    with pytest.raises(UsageError, match="cut in two"):
        selftest(recipe_of(tmp_path, tiny_llama), steps=1, runs=Inline())


def test_no_room_is_said_before_anything_is_written(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setattr(selftest_module, "_disk_bytes", lambda recipe, steps: 1 << 60)

    with pytest.raises(ResourceError, match="of disk"):
        selftest(recipe_of(tmp_path, tiny_llama), runs=Inline(), quiet=True)


def test_dropout_is_off_wherever_it_is_kept_and_back_afterwards(tiny_llama):
    model = attached(tiny_llama, ftkit.methods.LoRAMethod(rank=4, dropout=0.1)).train()
    layer = model.get_base_model().model.layers[0].self_attn
    layer.attention_dropout = model.config.attention_dropout = 0.2
    ids = torch.arange(5, 15).unsqueeze(0)

    with without_dropout(model):
        assert torch.equal(model(ids).logits, model(ids).logits)
        assert model.training

    assert (layer.attention_dropout, model.config.attention_dropout) == (0.2, 0.2)
    assert layer.q_proj.lora_dropout["default"].p == 0.1


def test_rows_too_long_for_one_pass_are_left_out_and_two_always_stay():
    rows = examples(8)
    longest = sorted((len(row.input_ids) for row in rows), reverse=True)

    def lengths(budget):
        return [len(row.input_ids) for row in rows_of_a_step(rows, batch_size=8, seed=0, budget=budget)]

    assert lengths(8 * longest[0]) == longest
    assert lengths(7 * longest[1]) == longest[1:]
    assert lengths(1) == longest[-2:]


def test_the_distance_is_over_all_gradients_together():
    step = Step(gradients={"a": torch.tensor([3.0]), "b": torch.tensor([4.0, 0.0])}, loss=2.0)
    other = Step(gradients={"a": torch.tensor([3.0]), "c": torch.tensor([3.0])}, loss=2.5)

    found = distance(step, other)

    assert found.gradient == pytest.approx(1.0)  # 4 of b and 3 of c are apart: 5, of a norm of 5
    assert (found.loss, found.worst) == (0.25, "b")
