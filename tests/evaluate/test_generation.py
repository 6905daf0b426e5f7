"""Greedy answers: the same alone and in a batch, ended by any stop token, and greedy whatever the checkpoint says."""

from __future__ import annotations

import pytest
import torch

from ftkit.evaluate import generation
from ftkit.evaluate.generation import generate, prompt_ids, stop_ids
from ftkit.methods import LoRAMethod
from ftkit.models.load import load_model
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = [[1, 20, 30], [1, 21, 31, 41, 51, 61, 71], [50], [7, 8, 9, 10, 11], [300, 200]]
NEVER = [399]  # a token that the answers below do not hold


@pytest.fixture(scope="module")
def model(tiny_llama):
    return load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))


def by_argmax(model, prompt: list[int], count: int) -> list[int]:
    """The definition: append the likeliest token, again and again, without any cache."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def text_of(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=True).strip()


def test_a_batch_padded_on_the_left_gives_the_answers_of_one_prompt_at_a_time(model):
    together = generate(model, PROMPTS, TOKENIZER, stop_token_ids=NEVER, max_new_tokens=12)

    for prompt, answer in zip(PROMPTS, together, strict=True):
        ids = by_argmax(model, prompt, 12)
        assert NEVER[0] not in ids
        assert (answer.text, answer.tokens, answer.finish_reason) == (text_of(ids), 12, "length")


@pytest.mark.parametrize("place", [0, 3])
def test_an_answer_ends_at_any_of_the_stop_tokens(place, model):
    ids = by_argmax(model, PROMPTS[0], 8)
    stop = ids[place]
    end = ids.index(stop)  # where it stands first

    (answer,) = generate(model, PROMPTS[:1], TOKENIZER, stop_token_ids=[*NEVER, stop], max_new_tokens=8)

    assert (answer.text, answer.tokens, answer.finish_reason) == (text_of(ids[:end]), end + 1, "stop")


def test_an_answer_that_stops_early_in_a_batch_is_not_lengthened_by_the_others(model):
    alone = [by_argmax(model, prompt, 10) for prompt in PROMPTS]
    stop = alone[1][4]

    answers = generate(model, PROMPTS, TOKENIZER, stop_token_ids=[stop], max_new_tokens=10)

    assert answers[1].finish_reason == "stop"
    for ids, answer in zip(alone, answers, strict=True):
        kept = ids[: ids.index(stop)] if stop in ids else ids
        assert (answer.text, answer.tokens) == (text_of(kept), len(kept) + (stop in ids))


def test_answers_come_in_the_order_of_the_prompts_though_batches_go_by_length(model, monkeypatch):
    monkeypatch.setattr(generation, "PROMPT_TOKENS_PER_BATCH", 8)
    seen = []

    answers = generate(
        model, PROMPTS, TOKENIZER, stop_token_ids=NEVER, max_new_tokens=5, progress=lambda *done: seen.append(done)
    )

    assert [answer.text for answer in answers] == [text_of(by_argmax(model, prompt, 5)) for prompt in PROMPTS]
    assert seen[-1] == (5, 5)
    assert len(seen) > 1


@pytest.mark.parametrize("attached", [False, True])
def test_a_checkpoints_own_generation_settings_do_not_make_answers_less_than_greedy(attached, tiny_llama):
    model = load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))
    expected = [by_argmax(model, prompt, 12) for prompt in PROMPTS]
    stop = expected[0][2]
    own = model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 3.0
    own.no_repeat_ngram_size, own.min_new_tokens, own.suppress_tokens = 1, 9, [expected[1][0]]
    if attached:
        model = LoRAMethod(rank=2).attach(model)

    answers = generate(model, PROMPTS, TOKENIZER, stop_token_ids=[stop], max_new_tokens=12)

    for ids, answer in zip(expected, answers, strict=True):
        assert answer.text == text_of(ids[: ids.index(stop)] if stop in ids else ids)
    assert own.no_repeat_ngram_size == 1
    assert model.generation_config.no_repeat_ngram_size == 1


def test_dropout_is_off_while_generating_and_the_mode_comes_back(tiny_llama):
    base = load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))
    model = LoRAMethod(rank=2, dropout=0.5).attach(base).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)

    first, second = (generate(model, PROMPTS, TOKENIZER, stop_token_ids=NEVER, max_new_tokens=6) for _ in range(2))

    assert [answer.text for answer in first] == [answer.text for answer in second]
    assert model.training


def test_a_prompt_goes_through_the_chat_template_or_is_plain_text_with_the_beginning_token_it_wants():
    chat = prompt_ids("hi", tiny_tokenizer())
    assert tiny_tokenizer().decode(chat) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    plain = tiny_tokenizer(template=None, bos=True)
    assert plain.decode(prompt_ids("hi", plain, in_front=[plain.bos_token_id])) == "<s>hi"
    assert plain.decode(prompt_ids("hi", plain)) == "hi"


@pytest.mark.parametrize(("configured", "expected"), [(7, [7]), ([7, 9], [7, 9]), (None, [2])])
def test_stop_tokens_are_the_generation_configs_or_else_the_tokenizers(configured, expected, tiny_llama):
    model = load_model(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))
    model.generation_config.eos_token_id = configured

    assert stop_ids(model, TOKENIZER) == expected


def test_likelihoods_are_those_of_the_tokens_that_were_taken_up_to_the_stop_token(model):
    ids = by_argmax(model, PROMPTS[1], 6)
    answers = generate(model, PROMPTS, TOKENIZER, stop_token_ids=ids[1:2], max_new_tokens=6)

    assert answers[1].finish_reason == "stop"
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        said = by_argmax(model, prompt, answer.tokens)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *said]]), use_cache=False).logits[0].log_softmax(dim=-1)
        by_hand = -sum(logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(said))
        assert answer.nats == pytest.approx(by_hand, abs=1e-4)
