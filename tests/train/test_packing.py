"""Packing changes how a step is computed: what it leads to, what is counted, kept and refused stays as it was."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from accelerate import Accelerator

from ftkit.errors import TrainingStoppedError
from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train import batches
from ftkit.train import objective as objective_module
from ftkit.train.checkpoint import newest_checkpoint
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable
from tests.train.test_hooks import PULL, Watching

ROWS, HELD = examples(20), examples(5, seed=1)  # of 4 to 24 tokens; three steps an epoch: of 8, 8 and 4 rows
COURSE = {"epochs": 2, "learning_rate": 1e-4}
MEASURED = ("step", "loss", "grad_norm", "learning_rate", "validation_loss", "tokens", "supervised_tokens")


@pytest.fixture(autouse=True)
def short_packs(monkeypatch):
    """Packs so short that a step of eight rows takes several."""
    monkeypatch.setitem(batches.TOKENS_PER_PACK, "cpu", 40)


def run(folder, base, *, packing, method=None, rows=ROWS, held=(), hooks=None, **settings):
    """Trained weights, and the lines of metrics."""
    model = attached(base, method)
    fit(model, rows, held, spec(folder, packing=packing, **(COURSE | settings)), hooks=hooks)
    return trainable(model), MetricsLog(folder / "metrics.jsonl").read()


def watch_passes(monkeypatch, *, then=None):
    """The batches of all forward passes in training, as they come."""
    seen, real = [], objective_module.summed_loss

    def watched(model, batch):
        seen.append(batch)
        loss = real(model, batch)
        return loss if then is None else then(len(seen), loss)

    monkeypatch.setattr(objective_module, "summed_loss", watched)
    return seen


def assert_same(packed, rows):
    for name, value in rows[0].items():
        torch.testing.assert_close(packed[0][name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: name + text)
    assert len(packed[1]) == len(rows[1]) > 0
    for line, other in zip(packed[1], rows[1], strict=True):
        ours, theirs = ({key: each[key] for key in MEASURED if key in each} for each in (line, other))
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("method", [LoRAMethod(rank=4, alpha=8), FullMethod()], ids=["lora", "full"])
@pytest.mark.parametrize("pack_length", [24, 40, 1000])  # one long row or a few, several rows, the whole step
def test_packed_steps_lead_where_unpacked_ones_lead(method, pack_length, tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setitem(batches.TOKENS_PER_PACK, "cpu", pack_length)
    settings = {"method": method, "held": HELD, "validate_every": 2}

    packed = run(tmp_path / "packed", tiny_llama, packing=True, **settings)

    assert_same(packed, run(tmp_path / "rows", tiny_llama, packing=False, **settings))


def test_a_step_takes_as_many_passes_as_it_has_packs_and_none_has_padding(tmp_path, tiny_llama, monkeypatch):
    seen = watch_passes(monkeypatch)

    run(tmp_path, tiny_llama, packing=True, epochs=1)

    assert sum(batch["input_ids"].numel() for batch in seen) == sum(len(row.input_ids) for row in ROWS)
    assert all(batch.keys() == {"input_ids", "position_ids", "labels"} for batch in seen)
    assert all(batch["input_ids"].shape == (1, min(40, batch["input_ids"].numel())) for batch in seen)
    # The first rows of packs, of which each step has at least two, since no two of its packs would fit into one.
    assert 3 < len(seen) < len(ROWS)
    assert all(batch["position_ids"][0, 0] == 0 for batch in seen)


@pytest.mark.parametrize("pull", [0.0, PULL])
def test_the_penalty_of_a_method_is_added_once_a_step_whatever_the_packs(pull, tmp_path, tiny_llama):
    settings = {"learning_rate": 1e-30, "max_grad_norm": 0.0, "epochs": 1}
    packed, rows = Watching(pull), Watching(pull)

    run(tmp_path / "packed", tiny_llama, packing=True, hooks=packed, **settings)
    run(tmp_path / "rows", tiny_llama, packing=False, hooks=rows, **settings)

    assert packed.penalties == 3
    assert packed.steps == rows.steps == [(1, 3), (2, 3), (3, 3)]
    for ours, theirs in zip(packed.gradients, rows.gradients, strict=True):
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-5)


def test_processes_wait_for_each_other_once_a_step_and_not_once_a_pack(tmp_path, tiny_llama, monkeypatch):
    # Each process has another number of packs: waiting in each pass, the one with fewer would never be met.
    events, real = [], Accelerator.no_sync
    monkeypatch.setattr(Accelerator, "no_sync", lambda self, model: events.append("alone") or real(self, model))
    watch_passes(monkeypatch, then=lambda number, loss: events.append("pass") or loss)
    hooks = Watching()
    hooks.after_update = lambda *args: events.append("update")

    run(tmp_path, tiny_llama, packing=True, epochs=1, hooks=hooks)

    steps = " ".join(events).split(" update")
    assert steps.pop() == ""
    assert len(steps) == 3
    for step in steps:
        passes = step.count("pass")
        assert step.split() == ["alone", "pass"] * (passes - 1) + ["pass"]
    assert max(step.count("pass") for step in steps) > 1


def test_gradient_checkpointing_changes_no_packed_step(tmp_path, tiny_llama):
    plain = run(tmp_path / "plain", tiny_llama, packing=True)

    assert_same(run(tmp_path / "recomputed", tiny_llama, packing=True, gradient_checkpointing=True), plain)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_in_one_pack_stops_the_run(value, tmp_path, tiny_llama, monkeypatch):
    watch_passes(monkeypatch, then=lambda number, loss: loss * (value if number == 2 else 1.0))

    with pytest.raises(TrainingStoppedError, match=r"step 1: the loss is (nan|inf)"):
        run(tmp_path, tiny_llama, packing=True)

    assert newest_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("at_pass", [2, 9])
def test_interrupted_and_resumed_is_bit_for_bit_the_uninterrupted_run(at_pass, tmp_path, tiny_llama, monkeypatch):
    def course(folder):
        return spec(folder, packing=True, validate_every=2, schedule="cosine", **COURSE)

    def model():
        return attached(tiny_llama, LoRAMethod(rank=4, alpha=8, dropout=0.2))

    straight, halted = model(), model()
    fit(straight, ROWS, HELD, course(tmp_path / "straight"))
    with monkeypatch.context() as patched:
        watch_passes(
            patched, then=lambda number, loss: (number == at_pass and os.kill(os.getpid(), signal.SIGINT), loss)[1]
        )
        stopped = fit(halted, ROWS, HELD, course(tmp_path / "halted"))
    assert stopped.interrupted
    assert 0 < stopped.steps < 6
    torch.manual_seed(999)  # as in a new process
    resumed = model()
    fit(
        resumed, ROWS, HELD, course(tmp_path / "halted"),
        resume_from=newest_checkpoint(tmp_path / "halted" / "checkpoints"),
    )  # fmt: skip

    assert all(torch.equal(value, trainable(straight)[name]) for name, value in trainable(resumed).items())
    lines = [MetricsLog(tmp_path / name / "metrics.jsonl").read() for name in ("straight", "halted")]
    kept = [[{key: line.get(key) for key in MEASURED} for line in course] for course in lines]
    assert kept[0] == kept[1]


def test_the_same_seed_gives_the_same_bytes_in_packs_too(tmp_path, tiny_llama):
    first, again = (
        run(tmp_path / name, tiny_llama, packing=True, method=LoRAMethod(rank=4, dropout=0.2)) for name in "ab"
    )

    assert all(torch.equal(value, again[0][name]) for name, value in first[0].items())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_has_its_own_attention_back_after_training(fails, tmp_path, tiny_llama, monkeypatch):
    model = attached(tiny_llama)
    during = []
    watch_passes(
        monkeypatch,
        then=lambda number, loss: (
            during.append(model.config._attn_implementation) or loss * (math.nan if fails else 1)
        ),
    )
    if fails:
        with pytest.raises(TrainingStoppedError):
            fit(model, ROWS, HELD, spec(tmp_path, packing=True))
    else:
        fit(model, ROWS, HELD, spec(tmp_path, packing=True))

    assert set(during) == {"ftkit_documents"}
    assert model.config._attn_implementation == "sdpa"
