"""What a training run writes, counts, keeps and refuses."""

from __future__ import annotations

import itertools
import json
import math
import threading

import pytest
import torch
from safetensors.torch import load_file

from ftkit.errors import TrainingStoppedError
from ftkit.evaluate.loss import mean_loss
from ftkit.files import files_in
from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train import objective as objective_module
from ftkit.train.checkpoint import by_validation_loss, is_whole, newest_checkpoint
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.objective import CausalLM
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

ROWS, HELD = examples(20), examples(5, seed=1)


class Judged(CausalLM):
    """Next-token prediction whose validations come out as told."""

    def __init__(self, losses):
        super().__init__(torch.float32)
        self.losses = iter(losses)

    def mean_loss(self, model, rows):
        return next(self.losses) if rows is HELD else super().mean_loss(model, rows)


def lines(folder):
    return MetricsLog(folder / "metrics.jsonl").read()


def losses(folder):
    return [line["loss"] for line in lines(folder) if "loss" in line]


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_every_step_writes_a_line_with_all_fields_and_validations_write_their_own(tmp_path, tiny_llama):
    result = fit(attached(tiny_llama), ROWS, HELD, spec(tmp_path, epochs=2, validate_every=2))

    written = lines(tmp_path)
    trained = [line for line in written if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5, 6]  # 20 rows, 8 a step: 3 steps an epoch
    assert [line["epoch"] for line in trained] == [0.4, 0.8, 1.0, 1.4, 1.8, 2.0]  # 5 passes of 4 an epoch: 2, 2, 1
    assert {frozenset(line) for line in trained} == {
        frozenset(
            ("step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens", "tokens_per_s",
             "wall_s", "peak_memory_bytes")
        )
    }  # fmt: skip
    assert [line["step"] for line in written if "validation_loss" in line] == [2, 4, 6]
    assert all(later["wall_s"] >= line["wall_s"] > 0 for line, later in itertools.pairwise(written))
    assert (result.steps, result.total_steps, result.interrupted) == (6, 6, False)
    assert (result.first_loss, result.last_loss) == (trained[0]["loss"], trained[-1]["loss"])
    assert result.validation_loss == written[-1]["validation_loss"] is not None


def test_the_first_loss_is_the_mean_over_the_first_steps_supervised_tokens(tmp_path, tiny_llama):
    everything = spec(tmp_path, batch_size=20, micro_batch_size=5)
    expected = mean_loss(attached(tiny_llama), ROWS, compute=torch.float32)

    assert fit(attached(tiny_llama), ROWS, [], everything).first_loss == pytest.approx(expected.mean, abs=1e-5)
    assert lines(tmp_path)[0]["supervised_tokens"] == expected.tokens


def test_tokens_are_counted_without_padding(tmp_path, tiny_llama):
    result = fit(attached(tiny_llama), ROWS, [], spec(tmp_path, epochs=2))

    assert result.tokens == 2 * sum(len(row.input_ids) for row in ROWS)
    assert lines(tmp_path)[-1]["tokens"] == result.tokens
    assert lines(tmp_path)[-1]["supervised_tokens"] == 2 * sum(row.supervised_tokens for row in ROWS)
    assert result.tokens_per_s == pytest.approx(result.tokens / result.wall_s)


def test_training_lowers_the_loss_and_moves_only_what_trains(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}

    result = fit(model, ROWS[:4], [], spec(tmp_path, epochs=12, batch_size=4, learning_rate=1e-2))

    assert result.last_loss < result.first_loss - 1
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"), [(1, None, 3), (2, None, 6), (0.5, None, 2), (5, 4, 4), (1, 40, 3)]
)
def test_epochs_and_max_steps_together_decide_how_long_it_trains(epochs, max_steps, expected, tmp_path, tiny_llama):
    settings = spec(tmp_path, epochs=epochs, max_steps=max_steps)

    assert settings.total_steps(20) == expected
    assert fit(attached(tiny_llama), ROWS, [], settings).steps == expected
    assert names(tmp_path) == [f"step-{expected:08d}"]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1.0] * 9),
        # Three steps of warm-up: 1/4, 2/4, 3/4, then the peak; linear and cosine would reach zero at step 9.
        ("constant", 3 / 9, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 1]),
        ("linear", 3 / 9, [1 / 4, 2 / 4, 3 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, warmup, expected, tmp_path, tiny_llama):
    settings = spec(tmp_path, epochs=3, schedule=schedule, warmup=warmup, learning_rate=1e-3)
    fit(attached(tiny_llama), ROWS, [], settings)

    assert [line["learning_rate"] for line in lines(tmp_path)] == pytest.approx([1e-3 * share for share in expected])


def test_gradients_are_scaled_down_to_the_norm_or_left_alone_when_it_is_zero(tmp_path, tiny_llama):
    def first_norm(folder, **settings):
        fit(attached(tiny_llama), ROWS, [], spec(tmp_path / folder, max_steps=1, **settings))
        return lines(tmp_path / folder)[0]["grad_norm"]

    # The norm in the log is the one before scaling.
    assert first_norm("scaled", max_grad_norm=1e-3) == pytest.approx(first_norm("free", max_grad_norm=0.0), rel=1e-5)


def test_validation_runs_without_dropout_and_training_goes_on_with_it(tmp_path, tiny_llama):
    model = attached(tiny_llama, LoRAMethod(rank=4, dropout=0.3))
    result = fit(model, ROWS, HELD, spec(tmp_path, validate_every=1))

    assert result.validation_loss == mean_loss(model, HELD, compute=torch.float32).mean
    assert model.training


def test_gradient_checkpointing_changes_memory_and_not_the_result(tmp_path, tiny_llama):
    ends = []
    for checkpointing in (False, True):
        model = attached(tiny_llama)
        fit(model, ROWS, [], spec(tmp_path / str(checkpointing), gradient_checkpointing=checkpointing))
        ends.append(trainable(model))

    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-6, rtol=0)


def test_a_checkpoint_is_safetensors_and_json_alone_and_verifies(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    fit(model, ROWS, [], spec(tmp_path))

    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest == tmp_path / "checkpoints" / "step-00000003"
    assert files_in(newest) == [
        "checkpoint.json", "optimizer.safetensors", "random.safetensors", "state.json", "trained.safetensors",
        "trainer_state.json",
    ]  # fmt: skip
    for file in files_in(newest):
        if file.endswith(".json"):
            json.loads((newest / file).read_text())
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".bin", ".pth", ".pkl")] == []


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over(damage, tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path, checkpoint_every=2))
    newest = tmp_path / "checkpoints" / "step-00000003"
    file = newest / "optimizer.safetensors"
    raw = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(raw[:-1])
    elif damage == "flip":
        raw[-1] ^= 1
        file.write_bytes(raw)
    elif damage == "missing":
        file.unlink()
    else:
        (newest / "checkpoint.json").unlink()

    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000002"


def test_without_any_checkpoint_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_a_damaged_checkpoint_is_written_anew_when_training_comes_by_again(tmp_path, tiny_llama):
    settings = spec(tmp_path, checkpoint_every=2)
    fit(attached(tiny_llama), ROWS, [], settings)
    newest = tmp_path / "checkpoints" / "step-00000003"
    whole = (newest / "trained.safetensors").read_bytes()
    (newest / "trained.safetensors").write_bytes(whole[:-1])

    fit(attached(tiny_llama), ROWS, [], settings, resume_from=newest_checkpoint(tmp_path / "checkpoints"))

    assert is_whole(newest)
    assert (newest / "trained.safetensors").read_bytes() == whole


def test_only_the_newest_checkpoints_are_kept(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path, epochs=2, checkpoint_every=1, keep_last=3))

    assert names(tmp_path) == ["step-00000004", "step-00000005", "step-00000006"]


def test_the_checkpoints_with_the_lowest_validation_losses_are_kept_besides(tmp_path, tiny_llama):
    judged = Judged([3.0, 1.0, 2.0, 1.5, 4.0, 5.0])

    # Every second step is written anyway, the others because they are validated.
    course = {"epochs": 2, "validate_every": 1, "checkpoint_every": 2}
    fit(attached(tiny_llama), ROWS, HELD, spec(tmp_path, keep_last=1, keep_best=2, **course), objective=judged)

    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000006"]
    ranked = [(loss, path.name) for loss, path in by_validation_loss(tmp_path / "checkpoints")]
    assert ranked == [(1.0, "step-00000002"), (1.5, "step-00000004"), (5.0, "step-00000006")]


def test_a_validation_loss_of_an_earlier_step_makes_no_checkpoint_the_best(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, HELD, spec(tmp_path, validate_every=2, checkpoint_every=1, keep_last=9))

    judged = sorted(path.name for _, path in by_validation_loss(tmp_path / "checkpoints"))
    assert judged == ["step-00000002", "step-00000003"]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path, max_steps=2))
    other = attached(tiny_llama, FullMethod(parameters=("model.norm.weight",)))

    with pytest.raises(ValueError, match="belongs to another recipe"):
        fit(other, ROWS, [], spec(tmp_path), resume_from=newest_checkpoint(tmp_path / "checkpoints"))


def poison(monkeypatch, *, at_call: int, value: float = math.nan):
    """Make the loss of one forward pass NaN or infinite, as an overflow would."""
    calls = []
    real = objective_module.summed_loss

    def poisoned(model, batch):
        calls.append(1)
        return real(model, batch) * (value if len(calls) >= at_call else 1.0)

    monkeypatch.setattr(objective_module, "summed_loss", poisoned)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("log_every", [1, 5])
def test_a_loss_that_is_no_number_stops_the_run_and_every_checkpoint_stays_good(
    value, log_every, tmp_path, tiny_llama, monkeypatch
):
    poison(monkeypatch, at_call=7, value=value)  # two passes a step: the fourth step

    with pytest.raises(TrainingStoppedError, match=r"step \d: the loss is (nan|inf).*\n.*train\.learning_rate"):
        fit(
            attached(tiny_llama), examples(40), [],
            spec(tmp_path, epochs=2, checkpoint_every=1, keep_last=2, log_every=log_every),
        )  # fmt: skip

    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    for name in names(tmp_path):
        saved = load_file(tmp_path / "checkpoints" / name / "trained.safetensors")
        assert all(value.isfinite().all() for value in saved.values())


def test_a_validation_loss_that_is_no_number_stops_the_run_too(tmp_path, tiny_llama):
    with pytest.raises(TrainingStoppedError, match="step 2: the validation loss is nan"):
        fit(attached(tiny_llama), ROWS, HELD, spec(tmp_path, validate_every=2), objective=Judged([math.nan]))


def test_it_runs_on_a_thread_that_cannot_take_signals(tmp_path, tiny_llama):
    results = []
    thread = threading.Thread(
        target=lambda: results.append(fit(attached(tiny_llama), ROWS, [], spec(tmp_path, max_steps=1)))
    )
    thread.start()
    thread.join()

    assert results[0].steps == 1


def test_resuming_a_finished_run_trains_no_further(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    first = fit(model, ROWS, HELD, spec(tmp_path))
    before = lines(tmp_path)
    again = attached(tiny_llama)

    second = fit(again, ROWS, HELD, spec(tmp_path), resume_from=newest_checkpoint(tmp_path / "checkpoints"))

    assert (second.steps, second.last_loss, second.tokens) == (3, first.last_loss, first.tokens)
    assert lines(tmp_path) == before
    assert all(torch.equal(value, trainable(model)[name]) for name, value in trainable(again).items())
