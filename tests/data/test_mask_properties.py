"""Of any conversation and every template family: exactly the answers count, behind exactly the server's prompts."""

from __future__ import annotations

import datetime
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from ftkit.data.encode import Encoder
from ftkit.data.sample import Turn
from tests.data.encoding import TODAY, conversation, encoder
from tests.data.template_zoo import FAMILIES, conversations

# What a call of `find_order` with {"number": "L1"} looks like, by hand.
CALLS = {
    "llama3": '{"name": "find_order", "parameters": {"number": "L1"}}',
    "qwen3": "<think>\n\n</think>\n\n\n<tool_call>\n"
    '{"name": "find_order", "arguments": {"number": "L1"}}\n</tool_call>',
}


class FrozenClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.combine(TODAY, datetime.time())


@pytest.fixture(autouse=True, scope="module")
def frozen_clock():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template_utils, "datetime", FrozenClock)
        yield


@cache
def of(name: str) -> tuple[Any, Encoder]:
    tokenizer = FAMILIES[name].tokenizer()
    return tokenizer, encoder(tokenizer)


def learnt(name: str, turn: Turn) -> str:
    """All that the model is to write for an answer."""
    family = FAMILIES[name]
    if "tool_calls" in turn.fields:
        return CALLS[name] + family.stop
    return family.says(turn.content, turn.fields.get("reasoning_content", "")) + family.stop


def served(name: str, sample, turn: int) -> list[int]:
    """The prompt that a server sends to have a turn answered."""
    tokenizer, _ = of(name)
    messages = [before.message for before in sample.turns[:turn]]
    tools = list(sample.content.tools) or None
    encoded = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, return_dict=True)
    return encoded["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_exactly_the_answers_and_their_stops_count_and_each_stands_behind_the_servers_prompt(name, data):
    sample = data.draw(conversations(FAMILIES[name]))
    tokenizer, encode = of(name)
    answers = [index for index, turn in enumerate(sample.turns) if turn.role == "assistant"]

    sequences = encode.encode(sample)

    if len(sequences) == 1 and not (FAMILIES[name].each and len(answers) > 1):
        places = list(zip(answers, sequences * len(answers), sequences[0].spans, strict=True))
    else:
        assert [one.turn for one in sequences] == answers  # every answer once
        places = [(one.turn, one, *one.spans) for one in sequences]
    for turn, sequence, (start, end) in places:
        assert tokenizer.decode(sequence.ids[start:end]) == learnt(name, sample.turns[turn])
        assert sequence.ids[:start].tolist() == served(name, sample, turn)
        assert sequence.ids[end - 1] in encode.settings.control_ids
    for one in sequences:
        assert one.turn == answers[-1] or len(sequences) > 1
        assert one.answer_start == one.spans[-1][0]
        assert one.stop_id == one.ids[one.spans[-1][1] - 1] == tokenizer.convert_tokens_to_ids(FAMILIES[name].stop)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_of_two_answers_is_split_only_where_its_template_needs_it(name):
    _, encode = of(name)

    assert len(encode.encode(conversation("hi", "yo", "how?", "so"))) == (2 if FAMILIES[name].each else 1)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_last_answer_alone_is_always_one_sequence_with_one_span(name, data):
    sample = data.draw(conversations(FAMILIES[name]))
    tokenizer, _ = of(name)

    (sequence,) = last_only(name).encode(sample)

    ((start, end),) = sequence.spans
    assert tokenizer.decode(sequence.ids[start:end]) == learnt(name, sample.turns[-1])
    assert sequence.ids[:start].tolist() == served(name, sample, len(sample.turns) - 1)


@cache
def last_only(name: str) -> Encoder:
    return encoder(of(name)[0], train_on="last")


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_answers_that_are_context_only_never_count_and_the_others_always_do(name, data):
    sample = data.draw(conversations(FAMILIES[name]))
    tokenizer, encode = of(name)
    answers = [index for index, turn in enumerate(sample.turns) if turn.role == "assistant"]
    trained = sorted(data.draw(st.sets(st.sampled_from(answers), min_size=1)))
    turns = tuple(
        Turn(role=turn.role, content=turn.content, fields=turn.fields, train=index in trained or index not in answers)
        for index, turn in enumerate(sample.turns)
    )

    sequences = encode.encode(with_turns(sample, turns))

    found = [tokenizer.decode(one.ids[start:end]) for one in sequences for start, end in one.spans]
    assert found == [learnt(name, sample.turns[index]) for index in trained]


def with_turns(sample, turns):
    return replace(sample, content=replace(sample.content, turns=turns))
