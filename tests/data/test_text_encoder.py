"""Ids equal to transformers' own, and cuts that are exactly where a text can be cut."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ftkit.data.text_encoder import TextEncoder
from tests.data.template_zoo import CONTROL, KINDS, PIECES, tokenizer_of, zoo_tokenizer

ALL = ["byte_level", *KINDS, "rstrip"]


@cache
def tokenizer(kind: str) -> Any:
    if kind == "byte_level":
        return zoo_tokenizer(None)
    return tokenizer_of("llama2", strips_behind=True) if kind == "rstrip" else tokenizer_of(kind)


@cache
def encoder(kind: str) -> TextEncoder:
    return TextEncoder(tokenizer(kind).backend_tokenizer.to_str())


marked_up = st.lists(
    st.one_of(
        st.sampled_from([*PIECES, "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<think>", "Hello There"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=60, deadline=None)
@given(pieces=marked_up)
def test_ids_are_those_of_the_tokenizer_itself(kind, pieces):
    text = "".join(pieces)

    assert encoder(kind).ids(text) == tokenizer(kind)(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=60, deadline=None)
@given(pieces=marked_up)
def test_a_cut_is_known_exactly_where_the_text_before_it_has_the_first_ids_of_the_whole(kind, pieces):
    text = "".join(pieces)
    places = list(range(len(text) + 1))
    whole = tokenizer(kind)(text, add_special_tokens=False)["input_ids"]

    ids, cuts = encoder(kind).cut(text, places)

    assert ids.tolist() == whole
    for place, cut in zip(places, cuts, strict=True):
        head = tokenizer(kind)(text[:place], add_special_tokens=False)["input_ids"]
        assert cut == (len(head) if whole[: len(head)] == head else None)


def test_letters_that_merge_over_a_cut_have_none():
    text = "<|im_start|>user"
    assert tokenizer("byte_level").tokenize(text) == ["<|im_start|>", "user"]

    ids, cuts = encoder("byte_level").cut(text, [0, 6, 12, 14, 16])

    assert ids.tolist() == [CONTROL.index("<|im_start|>"), tokenizer("byte_level").convert_tokens_to_ids("user")]
    assert cuts == [0, None, 1, None, 2]


def test_the_very_first_letters_of_a_text_may_be_treated_in_a_way_of_their_own():
    # Metaspace "first": "hello" at the beginning is "▁hello", behind a control token it is not.
    alone = tokenizer("metaspace_first").tokenize("assistant\n")
    behind = tokenizer("metaspace_first").tokenize("<|im_start|>assistant\n")
    assert alone[0].startswith("▁")
    assert behind[1:] != alone

    _, cuts = encoder("metaspace_first").cut("<|im_start|>assistant\nyo", [len("<|im_start|>assistant\n")])

    assert cuts == [len(behind)]


def test_a_tokenizer_that_was_left_cutting_and_padding_does_neither_here():
    raw = zoo_tokenizer(None).backend_tokenizer
    raw.enable_truncation(4)
    raw.enable_padding(length=64)

    assert len(TextEncoder(raw.to_str()).ids("one two three four five six")) == len(
        zoo_tokenizer(None).tokenize("one two three four five six")
    )


def test_decoding_gives_back_control_tokens_and_spaces():
    text = "<|im_start|>user\n how ?<|im_end|>"

    assert encoder("byte_level").decode(encoder("byte_level").ids(text)) == text


@pytest.mark.real
def test_ids_and_cuts_of_a_real_tokenizer_are_those_of_transformers(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2.folder)
    text = (
        "<|im_start|>user\nWhere is my order L1234?\n\n 🙂<|im_end|>\n<|im_start|>assistant\n On its way!<|im_end|>\n"
    )
    encoder = TextEncoder(tokenizer.backend_tokenizer.to_str())

    ids, cuts = encoder.cut(text, range(len(text) + 1))

    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.tolist() == whole
    for place, cut in enumerate(cuts):
        head = tokenizer(text[:place], add_special_tokens=False)["input_ids"]
        assert cut == (len(head) if whole[: len(head)] == head else None)
    assert sum(cut is not None for cut in cuts) == 28  # of them, so the two branches are both seen
