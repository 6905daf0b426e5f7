"""What a method may do within training: a penalty, a word after each update, a memory in the checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

from ftkit.train.checkpoint import checkpoint_folder, is_whole
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

ROWS, HELD = examples(20), examples(5, seed=1)  # three steps an epoch: of 8, 8 and 4 rows
PULL = 0.5


class Watching:
    """Pulls every trained number down with the same gradient, and remembers what it saw."""

    def __init__(self, pull=0.0):
        self.pull, self.penalties, self.steps, self.gradients = pull, 0, [], []
        self.parameters, self.updates = [], torch.zeros(())

    def penalty(self, model):
        self.penalties += 1
        if self.pull == 0.0:
            return None
        return self.pull * sum(value.sum() for value in model.parameters() if value.requires_grad)

    def after_update(self, model, step, total_steps):
        self.steps.append((step, total_steps))
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})
        self.parameters.append(trainable(model))
        self.updates += 1

    def state(self):
        return {"updates": self.updates.clone()}

    def load_state(self, state):
        self.updates = state["updates"].clone()


class Forgetful(Watching):
    """Remembers nothing."""

    def state(self):
        return {}

    def load_state(self, state):
        assert state == {}


def logged(folder, key):
    return [line[key] for line in MetricsLog(folder / "metrics.jsonl").read() if key in line]


def checkpoint(folder, step):
    return checkpoint_folder(folder / "checkpoints", step)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_each_steps_gradient_has_the_penalty_exactly_once_however_the_step_is_cut(
    micro_batch_size, tmp_path, tiny_llama
):
    def run(pull):
        hooks = Watching(pull)
        # At this rate the parameters stand as good as still, so that the gradients of all steps can be compared.
        course = spec(
            tmp_path / str(pull), micro_batch_size=micro_batch_size, learning_rate=1e-30, max_grad_norm=0.0,
            validate_every=1,
        )  # fmt: skip
        fit(attached(tiny_llama), ROWS, HELD, course, hooks=hooks)
        return hooks

    free, pulled = run(0.0), run(PULL)

    assert len(pulled.gradients) == 3
    for without, with_penalty in zip(free.gradients, pulled.gradients, strict=True):
        for name, gradient in with_penalty.items():
            torch.testing.assert_close(gradient - without[name], torch.full_like(gradient, PULL), atol=1e-5, rtol=0)
    # What is reported is the cross-entropy alone.
    for key in ("loss", "validation_loss"):
        assert logged(tmp_path / str(PULL), key) == logged(tmp_path / "0.0", key) != []
    assert pulled.penalties == 3


def test_after_update_sees_every_step_once_with_its_gradients_and_the_parameters_it_led_to(tmp_path, tiny_llama):
    hooks = Watching()
    model = attached(tiny_llama)
    before = trainable(model)
    fit(model, ROWS, [], spec(tmp_path, epochs=2, max_grad_norm=1e-2), hooks=hooks)

    assert hooks.steps == [(step, 6) for step in range(1, 7)]
    norms = [sum(value.square().sum() for value in step.values()).sqrt().item() for step in hooks.gradients]
    assert norms == pytest.approx([1e-2] * 6, rel=1e-3)  # clipped
    # The constant rate's first step is rate * sign(g) against the gradient, so it has been taken already.
    first, moved = hooks.gradients[0], hooks.parameters[0]
    b = next(name for name in before if "lora_B" in name)
    assert torch.equal((moved[b] - before[b]).sign(), -first[b].sign())
    assert all(torch.equal(value, trainable(model)[name]) for name, value in hooks.parameters[-1].items())


def test_after_update_may_change_parameters_in_place(tmp_path, tiny_llama):
    class Clearing(Watching):
        def after_update(self, model, step, total_steps):
            for value in model.parameters():
                if value.requires_grad:
                    value.fill_(0.5)

    model = attached(tiny_llama)
    fit(model, ROWS, [], spec(tmp_path, max_steps=1), hooks=Clearing())

    assert all((value == 0.5).all() for value in trainable(model).values())


def test_hooks_that_only_watch_change_nothing(tmp_path, tiny_llama):
    plain, watched = attached(tiny_llama), attached(tiny_llama)
    fit(plain, ROWS, [], spec(tmp_path / "plain"))
    fit(watched, ROWS, [], spec(tmp_path / "watched"), hooks=Watching())

    assert all(torch.equal(value, trainable(plain)[name]) for name, value in trainable(watched).items())


@pytest.mark.parametrize("done", [1, 2])
def test_what_a_method_remembers_survives_a_resume(done, tmp_path, tiny_llama):
    straight, resumed = attached(tiny_llama), attached(tiny_llama)
    course = spec(tmp_path, checkpoint_every=1, keep_last=9)
    fit(straight, ROWS, [], course, hooks=Watching(PULL))

    hooks = Watching(PULL)
    fit(resumed, ROWS, [], course, resume_from=checkpoint(tmp_path, done), hooks=hooks)

    assert hooks.steps == [(step, 3) for step in range(done + 1, 4)]
    assert hooks.updates == 3
    assert all(torch.equal(value, trainable(straight)[name]) for name, value in trainable(resumed).items())


def test_resuming_a_finished_run_gives_the_method_its_memory_too(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path), hooks=Watching())

    hooks = Watching()
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path), resume_from=checkpoint(tmp_path, 3), hooks=hooks)

    assert (hooks.steps, hooks.updates) == ([], 3)


def test_the_memory_is_one_of_the_files_whose_damage_is_noticed(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path), hooks=Watching())
    saved = checkpoint(tmp_path, 3)
    assert "method.safetensors" in json.loads((saved / "checkpoint.json").read_text())["files"]
    assert is_whole(saved)

    memory = saved / "method.safetensors"
    raw = bytearray(memory.read_bytes())
    raw[-1] ^= 1
    memory.write_bytes(raw)

    assert not is_whole(saved)


def test_a_method_that_remembers_nothing_writes_no_file_and_resumes(tmp_path, tiny_llama):
    course = spec(tmp_path, checkpoint_every=2)
    fit(attached(tiny_llama), ROWS, [], course, hooks=Forgetful())
    assert not (checkpoint(tmp_path, 2) / "method.safetensors").exists()

    again = fit(attached(tiny_llama), ROWS, [], course, resume_from=checkpoint(tmp_path, 2), hooks=Forgetful())

    assert again.steps == 3


def test_a_memory_that_no_method_takes_is_refused(tmp_path, tiny_llama):
    course = spec(tmp_path, checkpoint_every=2)
    fit(attached(tiny_llama), ROWS, [], course, hooks=Watching())

    with pytest.raises(ValueError, match="belongs to another recipe: its method remembers updates"):
        fit(attached(tiny_llama), ROWS, [], course, resume_from=checkpoint(tmp_path, 2))
