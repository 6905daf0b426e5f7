"""How a step is cut into forward passes changes speed and memory, and nothing else."""

from __future__ import annotations

import pytest
import torch

from ftkit.data.collate import collate
from ftkit.evaluate.loss import summed_loss
from ftkit.methods import FullMethod, LoRAMethod
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.train.fitting import attached, examples, spec, trainable

METHODS = {"lora": lambda: LoRAMethod(rank=4, alpha=8), "full": FullMethod}


def train(folder, base, rows, *, micro_batch_size, method="lora", **settings):
    """Trainable weights and the logged loss and gradient norm of every step."""
    model = attached(base, METHODS[method]())
    fit(model, rows, [], spec(folder, micro_batch_size=micro_batch_size, **settings))
    lines = MetricsLog(folder / "metrics.jsonl").read()
    return trainable(model), [(line["loss"], line["grad_norm"]) for line in lines]


def assert_same(ours, theirs):
    for name, value in theirs[0].items():
        torch.testing.assert_close(
            ours[0][name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name} {text}"
        )
    for line, other in zip(ours[1], theirs[1], strict=True):
        assert line == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_a_batch_of_eight_is_the_same_in_one_pass_or_in_several(method, micro_batch_size, tmp_path, tiny_llama):
    # Between one supervised token a row and more than fifteen: a mean of means would weigh them wrongly.
    rows = examples(24)
    assert {row.supervised_tokens for row in rows} >= {1}
    assert max(row.supervised_tokens for row in rows) > 15
    settings = {"method": method, "epochs": 2, "learning_rate": 1e-4}

    whole = train(tmp_path / "whole", tiny_llama, rows, micro_batch_size=8, **settings)
    parts = train(tmp_path / "parts", tiny_llama, rows, micro_batch_size=micro_batch_size, **settings)

    assert len(whole[1]) == 6
    assert_same(parts, whole)


@pytest.mark.parametrize(("rows", "micro_batch_size"), [(11, 1), (11, 2), (13, 4), (9, 2)])
def test_the_smaller_last_step_of_an_epoch_is_the_same_too(rows, micro_batch_size, tmp_path, tiny_llama):
    settings = {"epochs": 3, "learning_rate": 1e-4}

    whole = train(tmp_path / "whole", tiny_llama, examples(rows), micro_batch_size=8, **settings)
    parts = train(tmp_path / "parts", tiny_llama, examples(rows), micro_batch_size=micro_batch_size, **settings)

    assert len(whole[1]) == 6  # two steps an epoch, the second of them small
    assert_same(parts, whole)


def test_the_gradient_of_a_step_is_that_of_the_mean_over_all_its_supervised_tokens(tmp_path, tiny_llama):
    rows = examples(8)
    model = attached(tiny_llama)
    tokens = sum(row.supervised_tokens for row in rows)
    for row in rows:  # one by one, so without any padding
        (summed_loss(model, collate([row])) / tokens).backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))

    _, lines = train(tmp_path, tiny_llama, rows, micro_batch_size=4, max_grad_norm=0.0)

    assert lines[0][1] == pytest.approx(norm.item(), rel=1e-5)


def test_padding_changes_no_gradient(tiny_llama):
    short, long = sorted(examples(8), key=lambda row: len(row.input_ids))[::7]

    def gradients(batches):
        model = attached(tiny_llama)
        for batch in batches:
            summed_loss(model, collate(batch)).backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    together, apart = gradients([[short, long]]), gradients([[short], [long]])
    for name, value in apart.items():
        torch.testing.assert_close(together[name], value, atol=2e-5, rtol=1e-5)
