"""One answer piece by piece is the answer in one piece, and ends where it is told to."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftkit.evaluate.generation import generate
from ftkit.evaluate.speaking import Speech, speak

PROMPT = [5, 60, 7, 80, 9]


@pytest.fixture(scope="module")
def loaded(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), AutoTokenizer.from_pretrained(tiny_llama)


class Scripted(torch.nn.Module):
    """A model that writes given tokens, whatever it is asked."""

    def __init__(self, model, tokens):
        super().__init__()
        self.model, self.tokens = model, list(tokens)

    def get_base_model(self):
        return self.model

    def generate(self, *, input_ids, stopping_criteria, generation_config, **_):
        for token in self.tokens[: generation_config.max_new_tokens]:
            input_ids = torch.cat([input_ids, torch.tensor([[token]])], dim=1)
            if any(bool(one(input_ids, None)) for one in stopping_criteria):
                break
        return input_ids


def scripted(loaded, text, **settings):
    """What is said, piece by piece, by a model that writes this text a byte-level token at a time, and the answer."""
    model, tokenizer = loaded
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces: list[str] = []
    speech = Speech(**{"max_new_tokens": 1000, **settings})
    answer = speak(Scripted(model, [*ids, 2]), PROMPT, tokenizer, speech, stop_token_ids=[2], say=pieces.append)
    assert "".join(pieces) == answer.text
    return pieces, answer


def test_a_greedy_answer_is_that_of_generate(loaded):
    model, tokenizer = loaded
    expected = generate(model, [PROMPT], tokenizer, stop_token_ids=[2], max_new_tokens=24)[0]
    pieces: list[str] = []

    answer = speak(
        model, PROMPT, tokenizer, Speech(max_new_tokens=24), stop_token_ids=[2], say=pieces.append
    )  # fmt: skip

    assert (answer.text, answer.tokens, answer.finish_reason) == (
        expected.text, expected.tokens, expected.finish_reason,
    )  # fmt: skip
    assert "".join(pieces) == answer.text


def test_characters_of_several_tokens_are_said_whole(loaded):
    pieces, answer = scripted(loaded, "a 漢字 🙂 b")

    assert answer.text == "a 漢字 🙂 b"
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 3


def test_white_space_around_an_answer_is_left_out_but_not_inside(loaded):
    assert scripted(loaded, " \n a \n b \n ")[1].text == "a \n b"
    assert scripted(loaded, " \n a \n b \n ", strip=False)[1].text == " \n a \n b \n "


def test_a_stop_text_ends_the_answer_and_is_never_said(loaded):
    pieces, answer = scripted(loaded, "one two END three", stop=("END",))

    assert answer.text == "one two"
    assert answer.finish_reason == "stop"
    assert not any("E" in piece for piece in pieces)


def test_what_only_begins_like_a_stop_text_is_said_after_all(loaded):
    assert scripted(loaded, "one EN two EN", stop=("END",))[1].text == "one EN two EN"


def test_tokens_count_up_to_the_one_that_ends_the_answer(loaded):
    count = len(loaded[1]("hello", add_special_tokens=False)["input_ids"])

    assert scripted(loaded, "hello")[1].tokens == count + 1
    cut = scripted(loaded, "hello", max_new_tokens=count)[1]
    assert (cut.tokens, cut.finish_reason) == (count, "length")


def test_a_listener_can_end_the_answer(loaded):
    model, tokenizer = loaded
    heard: list[str] = []

    answer = speak(
        model, PROMPT, tokenizer, Speech(max_new_tokens=100), stop_token_ids=[399],
        say=heard.append, ended=lambda: len(heard) >= 3,
    )  # fmt: skip

    assert 3 <= answer.tokens < 100


def test_a_seed_repeats_a_draw_and_does_not_fix_the_next_one(loaded):
    model, tokenizer = loaded

    def draw(**settings):
        speech = Speech(max_new_tokens=16, temperature=2.0, **settings)
        return speak(model, PROMPT, tokenizer, speech, stop_token_ids=[399]).text

    state = torch.get_rng_state()
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert draw() != draw()


def test_top_p_of_next_to_nothing_leaves_the_likeliest_token(loaded):
    model, tokenizer = loaded
    greedy = speak(model, PROMPT, tokenizer, Speech(max_new_tokens=8), stop_token_ids=[2])

    drawn = speak(
        model, PROMPT, tokenizer, Speech(max_new_tokens=8, temperature=2.0, top_p=1e-6), stop_token_ids=[2]
    )  # fmt: skip

    assert drawn.text == greedy.text
