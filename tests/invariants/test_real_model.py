"""The same promises on SmolLM2-135M and real rows."""

from __future__ import annotations

import datetime
import os
import signal
from pathlib import Path

import pytest
import torch

from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.evaluate.generation import generate
from ftkit.evaluate.loss import mean_loss
from ftkit.methods import LoRAMethod
from ftkit.models.load import load_model
from ftkit.models.tokenizer import load_tokenizer
from ftkit.recipe import DataSection
from ftkit.train import objective as objective_module
from ftkit.train.checkpoint import newest_checkpoint
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.train.fitting import spec, trainable

pytestmark = pytest.mark.real

ROWS = Path(__file__).parents[2] / "recipes" / "data" / "shop_tickets_train.jsonl"
COURSE = {"batch_size": 2, "micro_batch_size": 1, "max_steps": 4, "validate_every": 100, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return load_tokenizer(smollm2.folder)


@pytest.fixture(scope="module")
def prepared(tokenizer):
    section = DataSection.model_validate({"train": [{"path": str(ROWS), "max_rows": 12}], "validation": 0.25})
    encoder = encoder_settings(
        tokenizer, train_on="assistant", allow_control_tokens=False, today=datetime.date(2026, 1, 1)
    )
    return prepare(section, encoder)


def attached(smollm2, dropout=0.0):
    base = load_model(smollm2.folder, dtype=torch.float32, device=torch.device("cpu"))
    torch.manual_seed(0)
    return LoRAMethod(rank=8, alpha=16, dropout=dropout).attach(base)


def test_four_lora_steps_lower_the_loss_of_rows_that_were_held_back(smollm2, prepared, tmp_path):
    model = attached(smollm2)
    before = mean_loss(model, prepared.validation, compute=torch.float32).mean

    result = fit(model, prepared.train, prepared.validation, spec(tmp_path, **COURSE))

    assert result.steps == 4
    assert result.validation_loss < before - 0.1
    assert result.tokens_per_s > 0


def test_interrupted_and_resumed_is_bit_for_bit_the_uninterrupted_run(smollm2, prepared, tmp_path, monkeypatch):
    straight = attached(smollm2, dropout=0.1)
    fit(straight, prepared.train, [], spec(tmp_path / "straight", **COURSE))
    expected = trainable(straight)
    del straight
    real, calls = objective_module.summed_loss, []

    def watched(model, batch):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(model, batch)

    with monkeypatch.context() as patched:
        patched.setattr(objective_module, "summed_loss", watched)
        halted = fit(attached(smollm2, dropout=0.1), prepared.train, [], spec(tmp_path / "halted", **COURSE))
    assert (halted.interrupted, halted.steps) == (True, 2)
    model = attached(smollm2, dropout=0.1)
    checkpoint = newest_checkpoint(tmp_path / "halted" / "checkpoints")
    fit(model, prepared.train, [], spec(tmp_path / "halted", **COURSE), resume_from=checkpoint)

    assert all(torch.equal(value, expected[name]) for name, value in trainable(model).items())
    losses = [[line["loss"] for line in MetricsLog(tmp_path / name / "metrics.jsonl").read()] for name in
              ("straight", "halted")]  # fmt: skip
    assert losses[0] == losses[1]


def test_answers_in_a_batch_are_those_of_one_prompt_at_a_time(smollm2, prepared, tokenizer):
    model = attached(smollm2)
    prompts = [example.input_ids[: example.answer_start] for example in prepared.train[:3]]
    stops = prepared.stop_token_ids

    together = generate(model, prompts, tokenizer, stop_token_ids=stops, max_new_tokens=12)

    alone = [generate(model, [prompt], tokenizer, stop_token_ids=stops, max_new_tokens=12)[0] for prompt in prompts]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert len({len(prompt) for prompt in prompts}) > 1
