"""``ftkit chat`` from a pipe: a line is a turn, answers come as they would one by one, /exit leaves."""

from __future__ import annotations

import io
import json
import sys

import pytest

from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.prompting import chat_ids
from ftkit.pipeline.target import open_target
from tests.cli.running import ftkit

LONGEST = 6


@pytest.fixture
def typed(monkeypatch):
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def _answers(model, questions, system=None):
    """What the model says to each, asked with all that was said before."""
    target = open_target(str(model))
    messages = [] if system is None else [{"role": "system", "content": system}]
    answers = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        answer = target.speak(chat_ids(target.tokenizer, messages), Speech(max_new_tokens=LONGEST))
        answers.append(answer.text)
        messages.append({"role": "assistant", "content": answer.text})
    return answers


def test_lines_of_a_pipe_are_turns_of_one_conversation(typed, tiny_llama):
    questions = ["hello there", "What colour is grass?"]
    expected = _answers(tiny_llama, questions, system="Be brief.")
    typed("\n".join(questions))

    outcome = ftkit("chat", tiny_llama, "--system", "Be brief.", "--max-new-tokens", LONGEST)

    assert outcome.code == 0, outcome.err
    assert outcome.out == "".join(f"{answer}\n" for answer in expected)


def test_json_is_one_document_with_the_conversation_since_the_last_reset(typed, tiny_llama):
    typed("hello there\n/reset\nWhat colour is grass?\n/exit\nnever asked\n")

    outcome = ftkit("chat", tiny_llama, "--max-new-tokens", LONGEST, "--json")

    document = json.loads(outcome.out)
    assert [message["content"] for message in document["messages"]] == [
        "What colour is grass?", *_answers(tiny_llama, ["What colour is grass?"]),
    ]  # fmt: skip
    assert [answer["tokens"] for answer in document["answers"]] == [LONGEST, LONGEST]


def test_a_turn_that_is_too_long_ends_a_pipe_with_exit_3(typed, tiny_llama):
    typed("word " * 600)

    outcome = ftkit("chat", tiny_llama)

    assert outcome.code == 3
    assert "this model takes 1 to 511" in outcome.err
