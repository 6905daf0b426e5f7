"""Learning rates of their own for some parameters (LoRA+)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train.checkpoint import checkpoint_folder
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.optimizer import parameter_groups
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

ROWS = examples(20)


def faster_b(model, factor=16.0):
    return {name: factor for name in trainable(model) if "lora_B" in name}


def rates(folder):
    return [line["learning_rate"] for line in MetricsLog(folder / "metrics.jsonl").read()]


def tiny_net():
    """Two matrices, two vectors, and a frozen matrix: 0.weight, 0.bias, 1.weight, 1.bias, 2.weight."""
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 2, bias=False))
    net[2].weight.requires_grad_(False)
    return net


def grouped(tmp_path, **factors):
    """Per group: names of the parameters, their decay, their rate."""
    net = tiny_net()
    named = {id(value): name for name, value in net.named_parameters()}
    settings = spec(tmp_path, learning_rate=0.5, weight_decay=0.25, learning_rate_factors=factors)
    groups = parameter_groups(net, settings, decayed=["0.weight", "1.weight", "2.weight"])
    return [([named[id(value)] for value in group["params"]], group["weight_decay"], group["lr"]) for group in groups]


def test_without_factors_there_are_the_trainers_two_groups(tmp_path):
    assert grouped(tmp_path) == [(["0.weight", "1.weight"], 0.25, 0.5), (["0.bias", "1.bias"], 0.0, 0.5)]


def test_each_factor_has_a_group_that_decays_and_one_that_does_not_and_factor_one_comes_first(tmp_path):
    assert grouped(tmp_path, **{"0.weight": 4.0, "0.bias": 2.0, "1.weight": 2.0, "1.bias": 1.0}) == [
        ([], 0.25, 0.5),
        (["1.bias"], 0.0, 0.5),
        (["1.weight"], 0.25, 1.0),
        (["0.bias"], 0.0, 1.0),
        (["0.weight"], 0.25, 2.0),
        ([], 0.0, 2.0),
    ]


@pytest.mark.parametrize("name", ["0.wieght", "2.weight"])  # misspelt; frozen
def test_a_factor_for_a_name_that_does_not_train_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"no parameter that trains is called {name}"):
        grouped(tmp_path, **{name: 2.0})


def test_fit_refuses_an_unknown_name_before_the_first_step(tmp_path, tiny_llama):
    with pytest.raises(ValueError, match="no parameter that trains is called lora_B"):
        fit(attached(tiny_llama), ROWS, [], spec(tmp_path, learning_rate_factors={"lora_B": 2.0}))

    assert rates(tmp_path) == []


def next_to_nothing(gradient):
    return torch.full_like(gradient, 1e-30)


def test_weight_decay_takes_from_matrices_alone_and_factor_times_as_much(tmp_path, tiny_llama):
    def shrunk(name, **factors):
        """The share that one step's decay leaves of it: with next to no gradient, that is all that moves."""
        model = attached(tiny_llama, FullMethod(parameters=("model.embed_tokens.weight", "model.norm.weight")))
        tied = model.get_parameter("model.embed_tokens.weight")
        tied.register_hook(next_to_nothing)
        model.get_parameter("model.norm.weight").register_hook(next_to_nothing)
        before = trainable(model)[name]
        settings = spec(
            tmp_path / str(len(factors)), max_steps=1, learning_rate=0.1, weight_decay=0.5,
            learning_rate_factors=factors,
        )  # fmt: skip
        fit(model, ROWS, [], settings)
        return (trainable(model)[name] / before)[before != 0].mean().item()

    embedding, norm = "model.embed_tokens.weight", "model.norm.weight"
    assert shrunk(embedding) == pytest.approx(1 - 0.1 * 0.5)
    assert shrunk(embedding, **{embedding: 4.0, norm: 4.0}) == pytest.approx(1 - 4 * 0.1 * 0.5)
    assert shrunk(norm, **{embedding: 4.0, norm: 4.0}) == 1.0


def test_the_first_step_moves_b_by_factor_times_the_rate_and_a_by_the_rate(tmp_path, tiny_llama):
    model = attached(tiny_llama)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)  # at its usual zero, A would have no gradient
    before = trainable(model)
    course = spec(tmp_path, max_steps=1, max_grad_norm=0.0, learning_rate_factors=faster_b(model))
    fit(model, ROWS, [], course)

    # AdamW's first step: m = (1-b1) g / (1-b1) = g and v = (1-b2) g^2 / (1-b2) = g^2, so each number moves by
    # rate * g / (|g| + 1e-8), which is rate * sign(g) for all but the smallest gradients.
    moved = {name: (value - before[name]).abs() for name, value in trainable(model).items()}
    for name, distance in moved.items():
        expected = 16 * 1e-3 if "lora_B" in name else 1e-3
        assert distance.median().item() == pytest.approx(expected, rel=1e-2)
        assert distance.max().item() == pytest.approx(expected, rel=1e-3)
    assert {"lora_A" in name for name in moved} == {True, False}


def test_the_log_has_the_base_rate_and_each_group_runs_its_own_through_the_same_schedule(
    tmp_path, tiny_llama, monkeypatch
):
    model = attached(tiny_llama)
    everything = faster_b(model) | {name: 4.0 for name in trainable(model) if "lora_A" in name}
    peaks = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *args, **kwargs):
        peaks.append({group["lr"] for group in optimizer.param_groups if group["params"]})
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    fit(model, ROWS, [], spec(tmp_path, schedule="cosine", learning_rate_factors=everything))

    shares = [(1 + math.cos(math.pi * done / 3)) / 2 for done in range(3)]
    assert rates(tmp_path) == pytest.approx([1e-3 * share for share in shares])
    assert [sorted(peak) for peak in peaks] == [pytest.approx([4e-3 * share, 16e-3 * share]) for share in shares]


def test_resumed_with_factors_is_as_if_nothing_had_happened(tmp_path, tiny_llama):
    def model():
        return attached(tiny_llama, LoRAMethod(rank=4, alpha=8, dropout=0.1))

    straight, resumed = model(), model()
    course = spec(
        tmp_path, epochs=2, schedule="cosine", warmup=0.2, weight_decay=0.1, checkpoint_every=1, keep_last=9,
        learning_rate_factors=faster_b(straight),
    )  # fmt: skip
    fit(straight, ROWS, [], course)
    torch.manual_seed(999)
    again = fit(resumed, ROWS, [], course, resume_from=checkpoint_folder(tmp_path / "checkpoints", 2))

    assert again.steps == 6
    assert rates(tmp_path)[2:6] == rates(tmp_path)[6:]
    assert all(torch.equal(value, trainable(straight)[name]) for name, value in trainable(resumed).items())
