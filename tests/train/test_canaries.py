"""Each canary sings at the fault that it is there for, and is silent where nothing is wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ftkit.errors import TrainingStoppedError
from ftkit.evaluate.loss import mean_loss
from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train import objective as objective_module
from ftkit.train import trainer as trainer_module
from ftkit.train.batches import StepSampler
from ftkit.train.canaries import Canaries
from ftkit.train.checkpoint import newest_checkpoint, read_counters
from ftkit.train.course import MEDIAN_OF, Observations
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.objective import CausalLM
from ftkit.train.soundness import fingerprints, is_finite, require_finite
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

ROWS = examples(20)


def stopped(model, rows, settings, **more):
    with pytest.raises(TrainingStoppedError) as caught:
        fit(model, rows, [], settings, **more)
    return str(caught.value)


def steps_taken(folder):
    return [line["step"] for line in MetricsLog(folder / "metrics.jsonl").read()]


class Meddling:
    """A method's hooks that do something to the model after its update."""

    def __init__(self, meddle, at_step=1):
        self.meddle, self.at_step = meddle, at_step

    def penalty(self, model):
        return None

    def after_update(self, model, step, total_steps):
        if step == self.at_step:
            self.meddle(model)

    def state(self):
        return {}

    def load_state(self, state):
        pass


def frozen_weight(model):
    return next((name, value) for name, value in model.named_parameters() if not value.requires_grad)


def test_what_was_frozen_by_mistake_is_found_before_the_first_step(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    declared = sum(value.numel() for value in model.parameters() if value.requires_grad)
    mistaken = model.get_parameter("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight")
    mistaken.requires_grad_(False)

    said = stopped(model, ROWS, spec(tmp_path, trainable_parameters=declared))

    assert f"declares {declared} parameters to train, and {declared - mistaken.numel()} require a gradient" in said
    assert steps_taken(tmp_path) == []


@pytest.mark.parametrize("requires", [True, False])
def test_what_is_frozen_or_thawed_while_training_is_found_in_the_next_step(requires, tmp_path, tiny_llama):
    def meddle(model):
        value = next(value for value in model.parameters() if value.requires_grad is not requires)
        value.requires_grad_(requires)

    said = stopped(attached(tiny_llama), ROWS, spec(tmp_path), hooks=Meddling(meddle))

    assert "step 2" in said and "were frozen or thawed" in said


def test_a_layer_that_no_gradient_reaches_is_named(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    layer = model.base_model.model.model.layers[1].mlp
    layer.register_forward_hook(lambda module, args, output: output.detach())

    said = stopped(model, ROWS, spec(tmp_path))

    assert "after 3 steps 6 of 28 tensors that should train have had no gradient" in said
    assert "layers.1.mlp" in said


def test_a_graph_that_is_cut_off_everywhere_stops_in_the_first_step(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    for value in model.parameters():
        if value.requires_grad:
            value.register_hook(torch.zeros_like)

    assert "step 1: no gradient reaches any weight" in stopped(model, ROWS, spec(tmp_path))


def test_a_base_weight_that_changes_while_it_should_be_frozen_is_named(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    name, _ = frozen_weight(model)

    def meddle(model):
        frozen_weight(model)[1].data.view(-1)[0] += 1e-3

    said = stopped(model, ROWS, spec(tmp_path), hooks=Meddling(meddle, at_step=2))

    assert f"after 3 steps weights have changed that this method keeps frozen: {name}" in said


def test_a_base_weight_that_changes_late_is_found_before_the_end_is_saved(tmp_path, tiny_llama):
    def meddle(model):
        frozen_weight(model)[1].data.view(-1)[0] += 1e-3

    said = stopped(attached(tiny_llama), ROWS, spec(tmp_path, epochs=2), hooks=Meddling(meddle, at_step=5))

    assert "after 6 steps weights have changed" in said
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_a_rate_too_small_to_change_anything_stops(tmp_path, tiny_llama):
    model = attached(tiny_llama, FullMethod(parameters=("model.norm.weight",)))

    assert "no weight has moved" in stopped(model, ROWS, spec(tmp_path, learning_rate=1e-12))


def test_a_rate_of_zero_is_asked_for_the_gradients_alone(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    before = trainable(model)

    fit(model, ROWS, [], spec(tmp_path, learning_rate=0.0, epochs=7))

    assert all(torch.equal(value, before[name]) for name, value in trainable(model).items())


@pytest.mark.parametrize("rate", [1000.0, 30.0])
@pytest.mark.parametrize("method", [LoRAMethod(rank=4, alpha=8), FullMethod()], ids=["lora", "full"])
def test_a_learning_rate_far_too_high_stops_within_sixteen_steps(rate, method, tmp_path, tiny_llama):
    settings = spec(tmp_path, epochs=20, learning_rate=rate)

    said = stopped(attached(tiny_llama, method), ROWS, settings)

    assert "Lower train.learning_rate" in said
    assert len(steps_taken(tmp_path)) <= 16


def test_a_usual_rate_does_not_stop_and_the_first_batch_was_learnt(tmp_path, tiny_llama):
    fit(attached(tiny_llama), ROWS, [], spec(tmp_path, epochs=8, learning_rate=1e-2))

    seen = read_counters(newest_checkpoint(tmp_path / "checkpoints"))["observations"]
    assert seen["learnt"] is True
    assert seen["first_batch"] == pytest.approx(math.log(512), abs=1.0)


def watching(folder):
    """Past the first steps, so that only the losses are looked at."""
    seen = Observations(guessing=6.2, learnt=True)
    return Canaries(attached(folder), lambda step: ROWS, seen, CausalLM(torch.float32))


def test_losses_that_rise_for_good_stop_and_single_bad_ones_do_not(tiny_llama):
    watch = watching(tiny_llama)
    course = [1.0, 5.0, 1.1, 0.9] * 10 + [3.2] * 20

    with pytest.raises(TrainingStoppedError, match=r"the median of 10 losses went from 1.* to 3\.2"):
        for step, loss in enumerate(course, start=4):
            watch.before_update(step, loss=loss, norm=1.0)
    assert step == 48  # of ten losses, half are the high ones for good, and one more was high by chance


def test_losses_beyond_guessing_stop_after_three_steps(tiny_llama):
    watch = watching(tiny_llama)
    for step, loss in enumerate([20.0, 20.0, 3.0, 10.0, 14.0], start=4):
        watch.before_update(step, loss=loss, norm=1.0)

    with pytest.raises(TrainingStoppedError, match=r"step 9: .* the last 3 losses are 10 or more; guessing: 6\.2"):
        watch.before_update(9, loss=15.0, norm=1.0)


def test_a_divergence_names_the_hardest_rows_of_its_step(tiny_llama):
    watch = watching(tiny_llama)
    hard = mean_loss(watch.model, [ROWS[4]], compute=torch.float32).mean

    with pytest.raises(TrainingStoppedError, match=rf"Its rows by their loss: .*rows\.jsonl:\d+ \({hard:.1f}"):
        for step in range(4, 8):
            watch.before_update(step, loss=99.0, norm=1.0)


def test_answers_that_were_all_cut_off_do_not_stop(tmp_path, tiny_llama):
    cut = [row.cut(len(row.input_ids) - 1) for row in ROWS if row.answer_start < 3]

    assert fit(attached(tiny_llama), cut, [], spec(tmp_path, max_steps=1)).steps == 1


def test_rows_of_which_no_token_counts_are_named(tmp_path, tiny_llama):
    masked = [replace(row, labels=[-100] * len(row.labels)) if index == 3 else row for index, row in enumerate(ROWS)]

    said = stopped(attached(tiny_llama), masked, spec(tmp_path, batch_size=20, micro_batch_size=20))

    assert "step 1: no token counts towards the loss in rows.jsonl:4" in said


@pytest.mark.parametrize("packing", [False, True])
def test_a_step_of_which_no_token_counts_is_explained_however_late_it_comes(packing, tmp_path, tiny_llama):
    def blind(rows):
        return [replace(row, labels=[-100] * len(row.labels)) for row in rows]

    settings = spec(tmp_path, batch_size=2, micro_batch_size=2, packing=packing, checkpoint_every=1)
    order = [index for step in range(1, 11) for index in StepSampler(
        [len(row.input_ids) for row in ROWS], batch_size=2, seed=0
    ).rows_of(step)]  # fmt: skip
    rows = list(ROWS)
    for index in order[-2:]:
        rows[index] = blind([rows[index]])[0]

    said = stopped(attached(tiny_llama), rows, settings)

    assert said.startswith("step 10: the loss is nan")
    assert all(f"rows.jsonl:{index + 1}" in said for index in order[-2:])
    assert newest_checkpoint(tmp_path / "checkpoints").name == "step-00000009"


def test_a_loss_of_exactly_zero_stops(tmp_path, tiny_llama, monkeypatch):
    real = objective_module.summed_loss
    monkeypatch.setattr(objective_module, "summed_loss", lambda model, batch: real(model, batch) * 0.0)

    said = stopped(attached(tiny_llama), ROWS, spec(tmp_path))

    assert "step 1: the loss is exactly 0. Its rows: rows.jsonl:" in said


def test_answers_whose_stop_token_does_not_count_stop(tmp_path, tiny_llama):
    endless = [replace(row, labels=[*row.labels[:-2], row.labels[-2], -100]) for row in ROWS if row.answer_start < 3]
    assert len(endless) > 3

    said = stopped(attached(tiny_llama), endless, spec(tmp_path))

    assert "the token that ends an answer counts in none of its rows" in said


def test_prompts_that_count_stop_unless_they_are_meant_to(tmp_path, tiny_llama):
    everything = [replace(row, labels=[-100, *row.input_ids[1:]]) for row in ROWS if row.answer_start > 1]

    said = stopped(attached(tiny_llama), everything, spec(tmp_path / "masked", prompts_masked=True))

    assert "every token counts towards the loss, prompts included" in said
    assert fit(attached(tiny_llama), everything, [], spec(tmp_path / "all", max_steps=1)).steps == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("trains", [True, False])
def test_a_weight_that_is_no_number_is_named_before_the_first_step(trains, value, tmp_path, tiny_llama):
    model = attached(tiny_llama)
    name, weight = next(entry for entry in model.named_parameters() if entry[1].requires_grad is trains)
    weight.data.view(-1)[-1] = value

    assert name in stopped(model, ROWS, spec(tmp_path))
    assert steps_taken(tmp_path) == []


def test_a_weight_that_becomes_no_number_is_never_saved(tmp_path, tiny_llama):
    def meddle(model):
        next(value for value in model.parameters() if value.requires_grad).data.view(-1)[0] = math.nan

    said = stopped(attached(tiny_llama), ROWS, spec(tmp_path, checkpoint_every=1), hooks=Meddling(meddle, at_step=2))

    assert "step 2" in said and "lora_A" in said and "nothing was saved" in said
    kept = newest_checkpoint(tmp_path / "checkpoints")
    assert kept.name == "step-00000001"
    assert all(value.isfinite().all() for value in load_file(kept / "trained.safetensors").values())


def test_rows_that_give_no_number_are_named(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    marked = 3  # which no other row has
    rows = list(ROWS)
    rows[7] = replace(rows[7], input_ids=[marked, *rows[7].input_ids[1:]])

    def spoil(module, args, output):
        return torch.where((args[0] == marked).unsqueeze(-1), math.inf, output)

    model.get_input_embeddings().register_forward_hook(spoil)

    said = stopped(model, rows, spec(tmp_path, batch_size=20, micro_batch_size=5))

    assert "These rows give no number by themselves: rows.jsonl:8" in said


def test_weights_are_untouched_by_what_stops_before_the_update(tmp_path, tiny_llama, monkeypatch):
    model = attached(tiny_llama)
    before = trainable(model)
    real = objective_module.summed_loss
    monkeypatch.setattr(objective_module, "summed_loss", lambda model, batch: real(model, batch) * math.nan)

    stopped(model, ROWS, spec(tmp_path))

    assert all(torch.equal(value, before[name]) for name, value in trainable(model).items())


def test_looking_changes_nothing_of_what_is_trained(tmp_path, tiny_llama, monkeypatch):
    ends = []
    for name in ("watched", "unwatched"):
        if name == "unwatched":
            monkeypatch.setattr(trainer_module._StepTrainer, "watch", lambda self: None)
        model = attached(tiny_llama, LoRAMethod(rank=4, dropout=0.2))
        fit(model, ROWS, [], spec(tmp_path / name, epochs=2))
        ends.append(trainable(model))

    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_resumed_run_remembers_what_was_seen(tmp_path, tiny_llama):
    course = spec(tmp_path, epochs=4, checkpoint_every=1, keep_last=99)
    fit(attached(tiny_llama), ROWS, [], course)
    whole = read_counters(newest_checkpoint(tmp_path / "checkpoints"))["observations"]
    for step in (1, 2, 5):
        at = tmp_path / "checkpoints" / f"step-{step:08d}"
        again = spec(tmp_path / str(step), epochs=4, checkpoint_every=100)
        fit(attached(tiny_llama), ROWS, [], again, resume_from=at)

        assert read_counters(newest_checkpoint(tmp_path / str(step) / "checkpoints"))["observations"] == whole
    assert len(whole["recent"]) == MEDIAN_OF and whole["best"] is not None


def test_fingerprints_tell_any_change_of_a_value_and_finiteness_any_odd_one():
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.uint8):
        value = torch.arange(1, 200).to(dtype)
        other = value.clone()
        other[77] += 1
        assert fingerprints([("x", value)]) != fingerprints([("x", other)])
        assert fingerprints([("x", value)]) == fingerprints([("x", value.clone())])
        assert is_finite(value)
    for odd in (math.nan, math.inf, -math.inf):
        assert not is_finite(torch.tensor([1.0, odd, 2.0]))
    assert is_finite(torch.zeros(0))


def test_a_sound_model_passes(tiny_llama):
    require_finite(attached(tiny_llama))
