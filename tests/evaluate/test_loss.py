"""The loss is the mean over supervised tokens, whatever the batches and whichever logits are computed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ftkit.data.collate import collate
from ftkit.data.example import TokenizedExample
from ftkit.evaluate import loss as loss_module
from ftkit.evaluate.loss import Loss, keeps_chosen_logits, mean_loss, summed_loss
from ftkit.methods import LoRAMethod
from ftkit.models.load import load_model

CPU = torch.device("cpu")


def example(ids: list[int], labels: list[int]) -> TokenizedExample:
    return TokenizedExample(
        input_ids=ids, labels=labels, answer_start=1, stop_id=ids[-1], answer="", place="rows.jsonl:1"
    )


class NextIsCurrentPlusOne(nn.Module):
    """Over four tokens: odds of 2 : 1 : 1 : 1 for the token that follows in the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(2.0)))

    def forward(self, input_ids, attention_mask, use_cache):
        return SimpleNamespace(logits=self.scale * nn.functional.one_hot((input_ids + 1) % 4, 4).float())


# Probability 2/5 for the token after, 1/5 for any other: -log(2/5) = 0.916291, -log(1/5) = 1.609438.
BY_HAND = [
    example([0, 1, 2, 3], [-100, 1, 2, 3]),  # three tokens that follow: 3 x 0.916291
    example([0, 3], [-100, 3]),  # one that does not: 1.609438
    example([2, 3, 1, 1, 1], [-100, -100, 1, -100, 1]),  # two that do not: 2 x 1.609438
]


def test_mean_loss_is_the_cross_entropy_worked_out_by_hand():
    expected = (3 * -math.log(2 / 5) + 3 * -math.log(1 / 5)) / 6

    measured = mean_loss(NextIsCurrentPlusOne(), BY_HAND, compute=torch.float32)

    assert measured.tokens == 6
    assert measured.mean == pytest.approx(expected, abs=1e-6)
    assert measured.mean == pytest.approx(1.2628646, abs=1e-6)
    assert measured.perplexity == pytest.approx(math.exp(expected), abs=1e-5)


def test_every_token_counts_the_same_however_rows_are_batched(monkeypatch, tiny_llama):
    model = load_model(tiny_llama, dtype=torch.float32, device=CPU)
    generator = torch.Generator().manual_seed(0)
    examples = []
    for length in (3, 40, 7, 90, 12, 5, 5, 33):
        ids = torch.randint(4, 400, (length,), generator=generator).tolist()
        examples.append(example(ids, [-100, *ids[1:]] if length % 2 else [-100] * (length - 1) + ids[-1:]))

    losses = []
    for budget in (1, 100, 10_000):
        monkeypatch.setattr(loss_module, "TOKENS_PER_PASS", budget)
        losses.append(mean_loss(model, examples, compute=torch.float32))

    assert {loss.tokens for loss in losses} == {2 + 1 + 6 + 1 + 1 + 4 + 4 + 32}
    assert losses[0].mean == pytest.approx(losses[1].mean, abs=1e-5)
    assert losses[0].mean == pytest.approx(losses[2].mean, abs=1e-5)


def test_the_head_at_supervised_positions_alone_gives_the_loss_and_gradients_of_the_full_head(
    monkeypatch, tiny_llama
):
    model = load_model(tiny_llama, dtype=torch.float32, device=CPU)
    batch = collate([example([5, 6, 7, 8], [-100, -100, 7, -100]), example([9, 10], [-100, 10])])
    assert keeps_chosen_logits(model)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))

    def loss_and_gradients():
        model.zero_grad()
        loss = summed_loss(model, batch)
        loss.backward()
        return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]

    few, few_gradients = loss_and_gradients()
    monkeypatch.setattr(loss_module, "keeps_chosen_logits", lambda model: False)
    full, full_gradients = loss_and_gradients()

    assert seen == [2, 4]  # positions 0 and 1 predict all that counts
    assert few == pytest.approx(full, abs=1e-5)
    for ours, theirs in zip(few_gradients, full_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_head_is_spared_under_an_adapter_too(tiny_llama):
    base = load_model(tiny_llama, dtype=torch.float32, device=CPU)

    assert keeps_chosen_logits(LoRAMethod(rank=2).attach(base))
    assert not keeps_chosen_logits(NextIsCurrentPlusOne())


@pytest.mark.parametrize("training", [True, False])
def test_measuring_runs_without_dropout_and_leaves_the_mode_as_it_was(training, tiny_llama):
    base = load_model(tiny_llama, dtype=torch.float32, device=CPU)
    model = LoRAMethod(rank=2, dropout=0.5).attach(base).train(training)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.ones_(parameter)

    first, second = (mean_loss(model, BY_HAND, compute=torch.float32).mean for _ in range(2))

    assert first == second
    assert model.training is training


def test_perplexity_is_infinite_where_it_would_overflow():
    assert Loss(mean=0.0, tokens=1).perplexity == 1.0
    assert Loss(mean=800.0, tokens=1).perplexity == math.inf


def test_progress_ends_at_the_count_of_examples():
    seen = []
    mean_loss(NextIsCurrentPlusOne(), BY_HAND, compute=torch.float32, progress=lambda *done: seen.append(done))

    assert seen[-1] == (3, 3)
