"""Figures of what a model knew: held to sums worked out by hand, and unmoved by a model that did not move."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch

from ftkit.errors import DataError
from ftkit.evaluate.forgetting import POSITIONS, Forgetting, divergence
from ftkit.evaluate.general import ChoiceProbe, General, read_general
from ftkit.models.load import load_model
from ftkit.models.tokenizer import load_tokenizer

TEXTS = ("The quick brown fox jumps over the lazy dog, and then it sleeps for a while.", "Rain fell on the hills.")
GENERAL = General(
    texts=TEXTS,
    choices=(ChoiceProbe(query="What is red?", choices=("a rose", "the sea", "grass"), gold=0),),
    ends=(("The sky is", "blue"), ("Snow is", "white")),
)


@pytest.fixture(scope="module")
def model(tiny_llama):
    return load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu")).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return load_tokenizer(tiny_llama)


def nats_by_hand(model, given, wanted):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([given + wanted])).logits[0].log_softmax(dim=-1)
    return -sum(logits[len(given) - 1 + place, token].item() for place, token in enumerate(wanted))


def test_bits_per_byte_is_the_sum_over_tokens_over_the_bytes_that_they_spell(model, tokenizer):
    found = Forgetting(GENERAL, tokenizer, torch.float32).measure(model)
    nats, size, tokens = 0.0, 0, 0
    for text in TEXTS:
        whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = whole["input_ids"], whole["offset_mapping"]
        nats += nats_by_hand(model, ids[:1], ids[1:])
        size += len(text[spans[1][0] :].encode())
        tokens += len(ids) - 1
    assert found.text_tokens == tokens
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_the_right_choice_is_judged_by_its_likelihood_for_its_length(model, tokenizer):
    found = Forgetting(GENERAL, tokenizer, torch.float32).measure(model)
    probe = GENERAL.choices[0]
    before = tokenizer(f"{probe.query}\nAnswer:", add_special_tokens=False)["input_ids"]
    scores = []
    for choice in probe.choices:
        both = tokenizer(f"{probe.query}\nAnswer: {choice}", add_special_tokens=False)["input_ids"]
        assert both[: len(before)] == before
        scores.append(-nats_by_hand(model, before, both[len(before) :]) / len(choice.encode()))
    mass = torch.tensor(scores, dtype=torch.float64).softmax(dim=0)
    assert found.choice_likelihood == pytest.approx(mass[0].item(), rel=1e-5)
    assert found.choice_accuracy == float(mass.argmax() == 0)


def test_a_model_that_knows_an_end_gets_it_and_another_does_not(model, tokenizer):
    said = model.generate(
        input_ids=torch.tensor([tokenizer("The sky is", add_special_tokens=False)["input_ids"]]),
        max_new_tokens=1, do_sample=False, pad_token_id=0,
    )[0, -1:]  # fmt: skip
    before = tokenizer("The sky is", add_special_tokens=False)["input_ids"]
    measuring = Forgetting(General(ends=(("The sky is", "blue"),)), tokenizer, torch.float32)
    measuring._after = lambda *_: measuring._row(before, said.tolist())
    assert measuring.measure(model).end_accuracy == 1.0
    other = [(said.item() + 1) % model.config.vocab_size]
    measuring._after = lambda *_: measuring._row(before, other)
    found = measuring.measure(model)
    assert found.end_accuracy == 0.0 and found.bits_per_byte is None
    assert found.end_nll == pytest.approx(nats_by_hand(model, before, other), rel=1e-5)


def test_a_model_that_did_not_move_is_zero_away_and_one_that_moved_is_not(model, tokenizer):
    measuring = Forgetting(GENERAL, tokenizer, torch.float32)
    base = measuring.distributions(model)
    assert 0 < len(base) <= POSITIONS
    assert torch.allclose(base.exp().sum(dim=1), torch.ones(len(base)), atol=1e-5)
    assert divergence(base, measuring.distributions(model)) == 0.0
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.model.layers[0].mlp.down_proj.weight.mul_(3.0)
    by_hand = torch.nn.functional.kl_div(
        measuring.distributions(moved).double(), base.double(), log_target=True, reduction="batchmean"
    )
    assert divergence(base, measuring.distributions(moved)) == pytest.approx(by_hand.item(), rel=1e-9)
    assert by_hand > 0
    wider = torch.cat([measuring.distributions(moved), torch.full((len(base), 2), -20.0)], dim=1)
    assert divergence(base, wider) == pytest.approx(by_hand.item(), rel=1e-9)  # tokens that were added do not count
    assert divergence(torch.zeros(0, 0), torch.zeros(0, 0)) is None


def test_a_model_in_training_is_measured_without_dropout_and_given_back(model, tokenizer):
    trained = copy.deepcopy(model).train()
    first = Forgetting(GENERAL, tokenizer, torch.float32).measure(trained)
    assert trained.training and first == Forgetting(GENERAL, tokenizer, torch.float32).measure(model)


def test_files_are_told_apart_by_what_their_rows_hold(tmp_path):
    (tmp_path / "a.txt").write_text("Some text.")
    rows = [
        {"text": "More text."},
        {"query": "What?", "choices": ["this", "that"], "gold": 1},
        {"context": "It is", "continuation": " so"},
    ]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_general([tmp_path / "a.txt", tmp_path / "b.jsonl"], most=10)
    assert found.texts == ("Some text.", "More text.")
    assert found.choices[0].gold == 1 and found.ends == (("It is", "so"),)
    assert len(read_general([tmp_path / "a.txt", tmp_path / "b.jsonl"], most=1).texts) == 1


def test_every_fault_is_named_with_its_line(tmp_path):
    one, two = '{"query": "x", "choices": ["one"], "gold": 0}', '{"query": "x", "choices": ["a", "b"], "gold": 2}'
    rows = [one, two, "{", '{"a": 1}', '{"context": "x"}']
    (tmp_path / "bad.jsonl").write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError) as caught:
        read_general([tmp_path / "bad.jsonl", tmp_path / "gone.txt"], most=10)
    said = str(caught.value)
    assert all(f"bad.jsonl:{number}" in said or f"line {number}" in said for number in range(1, 6))
    assert "gone.txt" in said
