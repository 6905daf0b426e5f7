"""Templates that write earlier turns in another way once later ones follow: one sequence for each answer."""

from __future__ import annotations

import pytest

from ftkit.data.chat import RenderFault
from ftkit.data.sample import Turn
from tests.data.encoding import conversation, encoder, examples, marked, tokenize
from tests.data.template_zoo import CALL, FAMILIES, TOOL, template, zoo_tokenizer

# Drops the answers of earlier turns.
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] != 'assistant' or loop.last %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def thinking(thought: str, answer: str, **more) -> Turn:
    return Turn(role="assistant", content=answer, fields={"reasoning_content": thought}, **more)


def shown(sample, tokenizer, **options) -> list[str]:
    return [marked(example, tokenizer) for example in examples(sample, tokenizer, **options)]


def test_each_answer_is_trained_behind_the_conversation_that_serving_renders_at_that_moment():
    assert shown(conversation("hi", "yo", "how?", "so"), zoo_tokenizer(FORGETFUL)) == [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\n⟦so<|im_end|>⟧\n",
    ]


def test_thoughts_count_in_the_sequence_of_their_own_answer_and_are_gone_from_later_ones():
    tokenizer = FAMILIES["qwen3"].tokenizer()

    assert shown(conversation("hi", thinking("hm", "yo"), "how?", thinking("ah", "so")), tokenizer) == [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦<think>\nhm\n</think>\n\nyo<|im_end|>⟧\n",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
        "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\n⟦<think>\nah\n</think>\n\nso<|im_end|>⟧\n",
    ]


def test_thoughts_that_stand_in_the_content_are_treated_alike():
    tokenizer = FAMILIES["deepseek_r1"].tokenizer()

    assert shown(conversation("hi", "<think>hm</think>yo", "how?", "<think>ah</think>so"), tokenizer) == [
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>⟦<think>hm</think>yo<｜end▁of▁sentence｜>⟧",
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>yo<｜end▁of▁sentence｜>"
        "<｜User｜>how?<｜Assistant｜>⟦<think>ah</think>so<｜end▁of▁sentence｜>⟧",
    ]


def test_without_thoughts_the_same_template_needs_one_sequence_only():
    tokenizer = FAMILIES["deepseek_r1"].tokenizer()

    assert shown(conversation("hi", "yo", "how?", "so"), tokenizer) == [
        "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>⟦yo<｜end▁of▁sentence｜>⟧"
        "<｜User｜>how?<｜Assistant｜>⟦so<｜end▁of▁sentence｜>⟧"
    ]


def test_an_answer_that_ends_in_another_way_while_it_is_the_last_is_trained_to_end_so():
    tokenizer = FAMILIES["harmony"].tokenizer()
    head = (
        "<|start|>system<|message|>Current date: 2031-07-04<|end|><|start|>user<|message|>hi<|end|><|start|>assistant"
    )

    found = examples(conversation("hi", thinking("hm", "yo"), "how?", "so"), tokenizer)

    assert [marked(example, tokenizer) for example in found] == [
        f"{head}⟦<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yo<|return|>⟧",
        f"{head}<|channel|>final<|message|>yo<|end|><|start|>user<|message|>how?<|end|>"
        "<|start|>assistant⟦<|channel|>final<|message|>so<|return|>⟧",
    ]
    assert {example.stop_id for example in found} == {tokenizer.convert_tokens_to_ids("<|return|>")}


def test_what_a_template_writes_behind_the_last_turn_alone_neither_splits_a_row_nor_counts():
    tokenizer = FAMILIES["phi3"].tokenizer()

    (example,) = examples(conversation("hi", "yo", "how?", "so"), tokenizer)

    assert marked(example, tokenizer) == (
        "<|user|>\nhi<|end|>\n<|assistant|>\n⟦yo<|end|>⟧\n<|user|>\nhow?<|end|>\n<|assistant|>\n⟦so<|end|>⟧\n<|endoftext|>"
    )
    assert example.stop_id == tokenizer.convert_tokens_to_ids("<|end|>")


def test_an_end_token_that_only_the_last_turn_has_is_its_stop_and_not_something_behind_it():
    only_last = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{% if not loop.last or m.role == 'user' %}{{ '\n' }}{% else %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )

    assert shown(conversation("hi", "yo", "how?", "so"), zoo_tokenizer(only_last)) == [
        "<|im_start|>user\nhi\n<|im_start|>assistant\n⟦yo<|im_end|>⟧",
        "<|im_start|>user\nhi\n<|im_start|>assistant\nyo\n<|im_start|>user\nhow?\n<|im_start|>assistant\n⟦so<|im_end|>⟧",
    ]


def test_tool_calls_and_the_answers_behind_them_are_answers_like_others():
    tokenizer = FAMILIES["qwen3"].tokenizer()
    call = Turn(role="assistant", content="", fields=CALL)
    result = Turn(role="tool", content="on its way", fields={"name": "find_order"})
    sample = conversation("where is L1?", call, result, "It is on its way.", tools=(TOOL,))

    first, second = shown(sample, tokenizer)

    assert first.endswith(
        '<|im_start|>assistant\n⟦<think>\n\n</think>\n\n\n<tool_call>\n{"name": "find_order", "arguments": '
        '{"number": "L1"}}\n</tool_call><|im_end|>⟧\n'
    )
    assert second.endswith(
        "<|im_start|>user\n<tool_response>\non its way\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nIt is on its way.<|im_end|>⟧\n"
    )


def test_question_answer_and_place_of_each_sequence_are_its_own():
    first, second = examples(conversation("hi", "yo", "how?", "so"), zoo_tokenizer(FORGETFUL))

    assert (first.question, first.answer) == ("hi", "yo")
    assert (second.question, second.answer) == ("how?", "so")
    assert first.place == second.place == "rows.jsonl:1"
    assert first.answer_start == 12


@pytest.mark.parametrize("turn", [1, 3])
def test_answers_that_are_context_only_get_no_sequence(turn):
    answers = [Turn(role="assistant", content=text, train=index != turn) for index, text in ((1, "yo"), (3, "so"))]
    sample = conversation("hi", answers[0], "how?", answers[1])

    (only,) = examples(sample, zoo_tokenizer(FORGETFUL))

    assert only.answer == ("so" if turn == 1 else "yo")


def test_the_last_answer_alone_needs_one_sequence_whatever_happens_to_earlier_ones():
    example = tokenize(conversation("hi", "yo", "how?", "so"), zoo_tokenizer(FORGETFUL), train_on="last")

    assert example.answer == "so"
    assert marked(example, zoo_tokenizer(FORGETFUL)).endswith("assistant\n⟦so<|im_end|>⟧\n")


def test_all_tokens_are_those_of_the_last_rendering_and_an_answer_that_it_rewrites_cannot_be_left_out():
    tokenizer = zoo_tokenizer(FORGETFUL)

    assert shown(conversation("hi", "yo", "how?", "so"), tokenizer, train_on="all") == [
        "<|im_start|>⟦user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n⟧"
    ]
    kept_out = Turn(role="assistant", content="yo", train=False)
    with pytest.raises(RenderFault, match="so it cannot be kept out of training there") as caught:
        examples(conversation("hi", kept_out, "how?", "so"), tokenizer, train_on="all")
    assert caught.value.field == "turn 1"


def test_a_prompt_that_answers_do_not_continue_is_refused_rather_than_split():
    quiet = "{%- set enable_thinking = false %}" + template("qwen3")

    with pytest.raises(RenderFault, match=r"goes on with '\\n</think>.* writes 'hm\\n</think>") as caught:
        examples(conversation("hi", thinking("hm", "yo")), zoo_tokenizer(quiet))
    assert caught.value.field == "turn 1"
    assert "model.chat_template_kwargs" in caught.value.fix


def test_every_answer_that_is_trained_gets_exactly_one_sequence():
    sample = conversation("a", "b", "c", "d", "e", "f")

    encoded = encoder(zoo_tokenizer(FORGETFUL)).encode(sample)

    assert [one.turn for one in encoded] == [1, 3, 5]
    assert [len(one.spans) for one in encoded] == [1, 1, 1]
