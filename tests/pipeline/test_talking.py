"""A conversation grows turn by turn, and nothing that failed stays in it."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from ftkit.errors import DataError, UsageError
from ftkit.evaluate.generation import Answer
from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.talking import Conversation, talk
from tests.tiny import tiny_tokenizer

SPEECH = Speech(max_new_tokens=8)


class Counting:
    """A target that answers with the number of tokens that it was sent, in two pieces."""

    def __init__(self, tokenizer=None, *, fails=None, interrupted_after=None):
        self.tokenizer = tokenizer or tiny_tokenizer()
        self.fails, self.interrupted_after, self.sent = fails, interrupted_after, []

    def speak(self, ids, speech, *, say):
        self.sent.append(self.tokenizer.decode(ids))
        for index, piece in enumerate((str(len(ids)), " tokens")):
            if index == self.interrupted_after:
                raise KeyboardInterrupt
            say(piece)
        if self.fails is not None:
            raise self.fails
        return Answer(text=f"{len(ids)} tokens", tokens=2, finish_reason="stop", wall_s=0.0)


def _roles(conversation):
    return [message["role"] for message in conversation.messages]


def test_each_turn_is_asked_with_all_before_it():
    target = Counting()
    conversation = Conversation(target=target, speech=SPEECH, system="Be brief.")
    heard = []

    talk(conversation, ["one\n", "\n", "two\n"], heard.append)

    first = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    count = len(target.tokenizer(first)["input_ids"])
    assert target.sent[0] == first
    assert target.sent[1] == (
        f"{first}{count} tokens<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "".join(heard).startswith(f"{count} tokens\n")
    assert _roles(conversation) == ["system", "user", "assistant", "user", "assistant"]


def test_reset_forgets_all_but_the_system_and_exit_leaves():
    target = Counting()
    conversation = Conversation(target=target, speech=SPEECH, system="Be brief.")

    talk(conversation, ["one", "/reset", "two", "/exit", "three"], lambda _: None)

    assert "one" not in target.sent[1]
    assert len(target.sent) == 2
    assert [message["content"] for message in conversation.messages[:2]] == ["Be brief.", "two"]
    assert len(conversation.answers) == 2


@pytest.mark.parametrize(("after", "roles"), [(0, []), (1, ["user", "assistant"])])
def test_an_interrupted_answer_keeps_what_was_said(after, roles):
    conversation = Conversation(target=Counting(interrupted_after=after), speech=SPEECH)

    talk(conversation, ["one"], lambda _: None)

    assert _roles(conversation) == roles


def test_a_turn_that_cannot_be_answered_is_as_if_never_asked():
    conversation = Conversation(target=Counting(fails=DataError("too long")), speech=SPEECH)
    complaints = []

    talk(conversation, ["one", "two"], lambda _: None, complain=complaints.append)

    assert (complaints, conversation.messages) == (["too long", "too long"], [])
    with pytest.raises(DataError, match="too long"):
        talk(conversation, ["one"], lambda _: None)


def test_there_are_no_turns_without_a_template(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = None

    with pytest.raises(UsageError, match="no chat template"):
        Conversation(target=Counting(tokenizer), speech=SPEECH)
