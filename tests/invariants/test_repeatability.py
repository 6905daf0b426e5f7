"""The same recipe and seed give the same bytes; interrupted and resumed is as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ftkit.files import files_in, sha256_file
from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train import objective as objective_module
from ftkit.train.batches import StepSampler
from ftkit.train.checkpoint import newest_checkpoint
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

ROWS, HELD = examples(20), examples(4, seed=1)
MEASURED = ("step", "epoch", "loss", "learning_rate", "grad_norm", "validation_loss", "tokens", "supervised_tokens")
METHODS = {
    "lora-dropout": lambda: LoRAMethod(rank=4, alpha=8, dropout=0.1),
    "full-pattern": lambda: FullMethod(parameters=("model.layers.1.*", "model.norm.weight")),
}


def settings(folder, **changes):
    """20 rows in steps of 8, 8 and 4: nine steps in three epochs, in all but the last of an epoch two passes."""
    course = {"epochs": 3, "schedule": "cosine", "warmup": 0.2, "validate_every": 2, "micro_batch_size": 4}
    return spec(folder, **(course | changes))


def model_of(base, method):
    return attached(base, METHODS[method]())


def scramble_generators():
    """What a new process would have: other random states."""
    torch.manual_seed(999)
    np.random.seed(999)
    random.seed(999)


def interrupt_in_pass(monkeypatch, number: int, signal_number: int = signal.SIGINT):
    """Press Ctrl-C while the forward pass with that number runs."""
    calls = []
    real = objective_module.summed_loss

    def watched(model, batch):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal_number)
        return real(model, batch)

    monkeypatch.setattr(objective_module, "summed_loss", watched)


def measured(folder):
    return [
        {key: line[key] for key in MEASURED if key in line} for line in MetricsLog(folder / "metrics.jsonl").read()
    ]


def final_bytes(folder):
    """Digests of the last checkpoint's weights, optimizer state and generators."""
    last = newest_checkpoint(folder / "checkpoints")
    assert last.name == "step-00000009"
    return {name: sha256_file(last / name) for name in files_in(last) if name.endswith(".safetensors")}


def resume(folder, base, method, **changes):
    """As `ftkit resume` does: forget the lines after the checkpoint, load afresh, go on."""
    scramble_generators()
    checkpoint = newest_checkpoint(folder / "checkpoints")
    MetricsLog(folder / "metrics.jsonl").keep_through(int(checkpoint.name.removeprefix("step-")))
    model = model_of(base, method)
    scramble_generators()
    return model, fit(model, ROWS, HELD, settings(folder, **changes), resume_from=checkpoint)


def assert_identical(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_llama):
    """Each method's uninterrupted run: folder, trained weights, result."""
    runs = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp("straight")
        scramble_generators()
        model = model_of(tiny_llama, method)
        result = fit(model, ROWS, HELD, settings(folder))
        runs[method] = SimpleNamespace(folder=folder, weights=trainable(model), result=result)
    return runs


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes(method, straight, tmp_path, tiny_llama):
    model = model_of(tiny_llama, method)
    fit(model, ROWS, HELD, settings(tmp_path))

    assert_identical(trainable(model), straight[method].weights)
    assert final_bytes(tmp_path) == final_bytes(straight[method].folder)
    assert measured(tmp_path) == measured(straight[method].folder)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_seed_decides_what_dropout_drops(dropout, tmp_path, tiny_llama):
    # One step over rows of different lengths: sorted by length, their order is the same for every seed.
    rows = list({len(row.input_ids): row for row in ROWS}.values())
    ends = []
    for seed in (0, 1):
        model = attached(tiny_llama, LoRAMethod(rank=4, dropout=dropout))
        one_step = spec(tmp_path / str(seed), batch_size=len(rows), micro_batch_size=len(rows), seed=seed)
        fit(model, rows, [], one_step)
        ends.append(trainable(model))

    same = all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert same == (dropout == 0.0)


def test_every_epoch_has_its_own_order_of_rows_after_a_resume_too(tmp_path, tiny_llama, monkeypatch):
    seen = []
    real = objective_module.summed_loss

    def watched(model, batch):
        if len(seen) == 8:
            os.kill(os.getpid(), signal.SIGINT)  # in the second epoch
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(dim=1).tolist(), strict=True)
        seen.append([ids[:length] for ids, length in rows])
        return real(model, batch)

    monkeypatch.setattr(objective_module, "summed_loss", watched)
    fit(model_of(tiny_llama, "lora-dropout"), ROWS, [], settings(tmp_path))
    resume(tmp_path, tiny_llama, "lora-dropout")

    sampler, expected = StepSampler([len(row.input_ids) for row in ROWS], batch_size=8, seed=0), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected += [ROWS[index].input_ids for index in sampler]
    assert [ids for rows in seen for ids in rows] == expected


def test_another_seed_gives_other_weights(straight, tmp_path, tiny_llama):
    model = model_of(tiny_llama, "lora-dropout")
    fit(model, ROWS, HELD, settings(tmp_path, seed=1))

    weights = straight["lora-dropout"].weights
    assert not any(torch.equal(value, weights[name]) for name, value in trainable(model).items())


@pytest.mark.parametrize(
    ("method", "number", "stops_after"),
    [
        ("lora-dropout", 1, 1),  # in the first pass of the first step
        ("lora-dropout", 4, 2),  # in the second pass of the second step: mid-epoch
        ("lora-dropout", 5, 3),  # the last, small step of the first epoch: exactly between epochs
        ("lora-dropout", 8, 5),  # mid-way through the second epoch
        ("lora-dropout", 13, 8),  # in the last epoch, one step before the end
        ("full-pattern", 4, 2),
        ("full-pattern", 8, 5),
    ],
)
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(
    method, number, stops_after, straight, tmp_path, tiny_llama, monkeypatch
):
    with monkeypatch.context() as patched:
        interrupt_in_pass(patched, number)
        halted = fit(model_of(tiny_llama, method), ROWS, HELD, settings(tmp_path))
    assert (halted.interrupted, halted.steps) == (True, stops_after)
    model, resumed = resume(tmp_path, tiny_llama, method)

    whole = straight[method].result
    assert_identical(trainable(model), straight[method].weights)
    assert final_bytes(tmp_path) == final_bytes(straight[method].folder)
    assert measured(tmp_path) == measured(straight[method].folder)
    assert (resumed.steps, resumed.interrupted) == (9, False)
    assert (resumed.first_loss, resumed.last_loss) == (whole.first_loss, whole.last_loss)
    assert (resumed.validation_loss, resumed.tokens) == (whole.validation_loss, whole.tokens)
    assert resumed.wall_s > halted.wall_s


def test_interrupted_again_and_again_is_as_if_nothing_had_happened(straight, tmp_path, tiny_llama, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_in_pass(patched, 3)
        fit(model_of(tiny_llama, "lora-dropout"), ROWS, HELD, settings(tmp_path))
    with monkeypatch.context() as patched:
        interrupt_in_pass(patched, 2, signal.SIGTERM)
        _, second = resume(tmp_path, tiny_llama, "lora-dropout")
    assert second.interrupted
    model, _ = resume(tmp_path, tiny_llama, "lora-dropout")

    assert_identical(trainable(model), straight["lora-dropout"].weights)
    assert measured(tmp_path) == measured(straight["lora-dropout"].folder)


# Every three steps: a line spans the checkpoint after the fourth step, where the run is taken up again.
@pytest.mark.parametrize("log_every", [1, 3])
def test_a_crash_between_checkpoints_loses_the_steps_since_and_nothing_else(
    log_every, tmp_path, tiny_llama, monkeypatch
):
    uninterrupted = model_of(tiny_llama, "lora-dropout")
    course = {"checkpoint_every": 2, "log_every": log_every}
    fit(uninterrupted, ROWS, HELD, settings(tmp_path / "straight", **course))

    real, calls = objective_module.summed_loss, []

    def crashing(model, batch):
        calls.append(1)
        if len(calls) == 8:  # in the fifth step; the last checkpoint is that of the fourth
            raise KeyError("power cut")
        return real(model, batch)

    with monkeypatch.context() as patched:
        patched.setattr(objective_module, "summed_loss", crashing)
        with pytest.raises(KeyError, match="power cut"):
            fit(model_of(tiny_llama, "lora-dropout"), ROWS, HELD, settings(tmp_path / "halted", **course))
    assert newest_checkpoint(tmp_path / "halted" / "checkpoints").name == "step-00000004"
    model, _ = resume(tmp_path / "halted", tiny_llama, "lora-dropout", **course)

    assert_identical(trainable(model), trainable(uninterrupted))
    assert measured(tmp_path / "halted") == measured(tmp_path / "straight")


def test_the_signal_handlers_from_before_are_back_after_training(tmp_path, tiny_llama):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    fit(model_of(tiny_llama, "lora-dropout"), ROWS, [], settings(tmp_path, max_steps=1))

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_ends_at_once(tmp_path, tiny_llama, monkeypatch):
    real = objective_module.summed_loss

    def impatient(model, batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return real(model, batch)

    monkeypatch.setattr(objective_module, "summed_loss", impatient)
    with pytest.raises(KeyboardInterrupt):
        fit(model_of(tiny_llama, "lora-dropout"), ROWS, [], settings(tmp_path))
    assert newest_checkpoint(tmp_path / "checkpoints") is None
