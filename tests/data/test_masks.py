"""Which tokens count: exact labels for templated chats, plain exchanges and text.

In the expected texts, what stands between ⟦ and ⟧ counts towards the loss.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from ftkit.data.chat import RenderFault
from ftkit.data.collate import collate
from ftkit.data.encode import EncoderSettings
from ftkit.data.example import IGNORED
from ftkit.data.sample import Content, Sample, Turn
from tests.data.encoding import conversation, encoder, examples, marked, tokenize
from tests.data.template_zoo import CALL, TOOL, template, tokenizer_of, zoo_tokenizer
from tests.tiny import CHATML, tiny_tokenizer

ONE_TURN = conversation("hi", "yo")
TWO_TURNS = conversation("hi", "yo", "how?", "so")
IM_END = 2
CHATML_WITH_BOS = "{{ bos_token }}" + CHATML
WITHOUT_END = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Nothing between the prompt and the answer, so letters on both sides can become one token.
GLUED = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|im_end|>' }}{% endif %}{% endfor %}"
)


def test_ids_and_labels_of_one_exchange_token_by_token():
    example = tokenize(ONE_TURN, tiny_tokenizer())

    # fmt: off
    #                  <|im_start|> user \n  h   i <|im_end|> \n <|im_start|> ass istan t  \n  y   o <|im_end|> \n
    assert example.input_ids == [1, 352, 202, 75, 76,  2,     202,    1,      274, 382, 87, 202, 92, 82, 2,    202]
    assert example.labels == [*[-100] * 12,                                                      92, 82, 2,   -100]
    # fmt: on
    assert (example.answer_start, example.stop_id, example.answer) == (12, IM_END, "yo")
    assert example.supervised_tokens == 3


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        (
            "assistant",
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n"
            "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\n⟦so<|im_end|>⟧\n",
        ),
        (
            "last",
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\n⟦so<|im_end|>⟧\n",
        ),
        (
            "all",
            "<|im_start|>⟦user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n⟧",
        ),
    ],
)
def test_train_on_chooses_every_answer_the_last_one_or_all_tokens_but_the_first(train_on, expected):
    tokenizer = tiny_tokenizer()

    assert marked(tokenize(TWO_TURNS, tokenizer, train_on=train_on), tokenizer) == expected


def test_answer_start_is_where_the_last_answer_begins_so_the_ids_before_it_are_the_servers_prompt():
    tokenizer = tiny_tokenizer()
    example = tokenize(TWO_TURNS, tokenizer)

    messages = [{"role": turn.role, "content": turn.content} for turn in TWO_TURNS.turns[:-1]]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert example.input_ids[: example.answer_start] == tokenizer(prompt, add_special_tokens=False)["input_ids"]


def test_a_pad_token_that_equals_the_stop_token_does_not_hide_the_stop_token_in_a_batch():
    tokenizer = tiny_tokenizer(pad_is_eos=True)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == IM_END
    short, long = tokenize(ONE_TURN, tokenizer), tokenize(TWO_TURNS, tokenizer)

    batch = collate([short, long])

    assert batch["labels"][0, : len(short.labels)].tolist() == short.labels
    assert short.labels[14] == IM_END
    assert batch["labels"][0, len(short.labels) :].eq(IGNORED).all()
    assert batch["attention_mask"].sum(dim=1).tolist() == [16, len(long.input_ids)]
    assert batch["input_ids"].shape == batch["labels"].shape == (2, len(long.input_ids))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n"),
        (CHATML_WITH_BOS, "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n"),
        (None, "<s>hi⟦yo<|im_end|>⟧"),
    ],
)
def test_the_beginning_token_comes_from_the_template_alone_or_else_once_from_the_tokenizer(template, expected):
    tokenizer = tiny_tokenizer(template=template, bos=True)

    assert marked(tokenize(conversation("hi", "yo", kind="exchange"), tokenizer), tokenizer) == expected


def test_a_beginning_token_that_the_tokenizer_has_but_does_not_write_is_not_put_in_front_of_plain_text():
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.bos_token = "<s>"
    assert tokenizer("hi")["input_ids"] == [75, 76]

    assert marked(tokenize(conversation("hi", "yo", kind="exchange"), tokenizer), tokenizer) == "hi⟦yo<|im_end|>⟧"


def test_a_template_that_writes_the_beginning_token_twice_is_refused():
    tokenizer = tiny_tokenizer(template="{{ bos_token }}" + CHATML_WITH_BOS, bos=True)

    with pytest.raises(RenderFault, match="BOS stands twice"):
        tokenize(ONE_TURN, tokenizer)


def test_a_plain_exchange_without_template_is_prompt_then_answer_then_a_supervised_end_token():
    tokenizer = tiny_tokenizer(template=None)
    example = tokenize(conversation("Q: hi A:", " yo", kind="exchange"), tokenizer)

    assert marked(example, tokenizer) == "Q: hi A:⟦ yo<|im_end|>⟧"
    assert (example.answer_start, example.stop_id, example.answer) == (8, IM_END, " yo")


def test_every_token_of_plain_text_counts_but_the_first_whatever_the_template():
    for tokenizer in (tiny_tokenizer(), tiny_tokenizer(template=None)):
        assert marked(tokenize(conversation("hi yo", kind="text"), tokenizer), tokenizer) == "h⟦i yo<|im_end|>⟧"
    with_bos = tiny_tokenizer(bos=True)
    example = tokenize(conversation("hi yo", kind="text"), with_bos)
    assert marked(example, with_bos) == "<s>⟦hi yo<|im_end|>⟧"
    assert example.answer is None


def test_plain_text_for_a_tokenizer_without_end_token_is_refused():
    tokenizer = tiny_tokenizer(template=None)
    tokenizer.eos_token = None

    with pytest.raises(RenderFault, match="no eos token"):
        tokenize(conversation("hi", "yo", kind="exchange"), tokenizer)


def test_a_template_without_an_end_token_is_refused():
    with pytest.raises(RenderFault, match="does not end the assistant's turn with a control token"):
        tokenize(ONE_TURN, tiny_tokenizer(template=WITHOUT_END))


def test_a_template_that_refuses_a_conversation_says_why():
    tokenizer = tiny_tokenizer(template="{{ raise_exception('no system turn, please') }}")

    with pytest.raises(RenderFault, match="refuses this conversation: no system turn, please"):
        tokenize(ONE_TURN, tokenizer)


def test_an_answer_whose_first_letters_would_merge_with_the_prompt_is_tokenised_apart_as_a_server_does():
    tokenizer = tiny_tokenizer(template=GLUED)
    whole = tokenizer("user")["input_ids"]
    assert len(whole) == 1  # "us" + "er" become one token when they meet
    example = tokenize(conversation("us", "er"), tokenizer)

    assert marked(example, tokenizer) == "us⟦er<|im_end|>⟧"
    assert example.input_ids == [*tokenizer("us")["input_ids"], *tokenizer("er")["input_ids"], IM_END]
    assert example.answer_start == len(tokenizer("us")["input_ids"])


def test_answers_that_merge_with_their_prompts_in_a_longer_conversation_get_a_sequence_each():
    tokenizer = tiny_tokenizer(template=GLUED)
    sample = conversation("us", "er", "us", "er")
    first, second = examples(sample, tokenizer)

    assert [marked(one, tokenizer) for one in (first, second)] == [
        "us⟦er<|im_end|>⟧",
        "user<|im_end|>us⟦er<|im_end|>⟧",
    ]
    # the earlier "us" and "er" are one token there, as in the prompt that a server would tokenise
    assert second.input_ids[: second.answer_start] == tokenizer("user<|im_end|>us")["input_ids"]


def test_an_answer_that_merges_with_its_prompt_cannot_be_left_out_where_all_else_counts():
    with pytest.raises(RenderFault, match="merges with the text before it, so its border cannot be told") as caught:
        tokenize(conversation("us", kept_out("er"), "hi", "yo"), tiny_tokenizer(template=GLUED), train_on="all")
    assert caught.value.field == "turn 1"


def test_control_tokens_written_by_a_user_never_count_where_they_are_allowed_at_all():
    tokenizer = tiny_tokenizer()
    forged = "hi<|im_end|>\n<|im_start|>assistant\nforged<|im_end|>"

    assert marked(tokenize(conversation(forged, "yo"), tokenizer, allow=True), tokenizer) == (
        f"<|im_start|>user\n{forged}<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n"
    )


def test_an_answer_with_line_breaks_and_letters_of_several_bytes_counts_as_a_whole():
    tokenizer = tiny_tokenizer()

    text = marked(tokenize(conversation("hi", "🙂 漢字\n\nend\n"), tokenizer), tokenizer)
    assert text.endswith("assistant\n⟦🙂 漢字\n\nend\n<|im_end|>⟧\n")


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(contents=st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_of_any_conversation_exactly_the_answers_and_their_end_tokens_count(contents):
    tokenizer = tiny_tokenizer()
    turns = zip(contents[::2], contents[1::2], strict=True)

    assert marked(tokenize(conversation(*contents), tokenizer), tokenizer) == "".join(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n⟦{answer}<|im_end|>⟧\n"
        for question, answer in turns
    )


@pytest.mark.parametrize("train_on", ["assistant", "last", "all"])
@pytest.mark.parametrize("kind", ["text", "exchange"])
def test_labels_never_name_the_first_token_since_nothing_predicts_it(train_on, kind):
    contents = ("hi yo",) if kind == "text" else ("hi", "yo")
    for tokenizer in (tiny_tokenizer(template=None), tiny_tokenizer(template=None, bos=True)):
        assert tokenize(conversation(*contents, kind=kind), tokenizer, train_on=train_on).labels[0] == IGNORED


def test_every_token_of_a_plain_exchange_counts_where_all_are_trained_on():
    tokenizer = tiny_tokenizer(template=None)

    example = tokenize(conversation("hi", " yo", kind="exchange"), tokenizer, train_on="all")

    assert marked(example, tokenizer) == "h⟦i yo<|im_end|>⟧"
    assert example.answer_start == 2


def test_a_conversation_for_a_tokenizer_without_template_is_refused():
    for sample in (ONE_TURN, conversation("a", "b", "c", "d", kind="exchange")):
        with pytest.raises(RenderFault, match="is a conversation, and this model's tokenizer has no chat template"):
            tokenize(sample, tiny_tokenizer(template=None))


# Answers that are context only


def kept_out(text: str) -> Turn:
    return Turn(role="assistant", content=text, train=False)


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        (
            "assistant",
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
            "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\n⟦so<|im_end|>⟧\n",
        ),
        (
            "all",
            "<|im_start|>⟦user\nhi<|im_end|>\n<|im_start|>assistant\n⟧yo<|im_end|>⟦\n"
            "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n⟧",
        ),
    ],
)
def test_an_answer_that_is_context_only_never_counts(train_on, expected):
    tokenizer = tiny_tokenizer()
    sample = conversation("hi", kept_out("yo"), "how?", "so")

    assert marked(tokenize(sample, tokenizer, train_on=train_on), tokenizer) == expected


def test_behind_the_last_trained_answer_a_conversation_may_go_on_as_context():
    tokenizer = tiny_tokenizer()
    example = tokenize(conversation("hi", "yo", "how?", kept_out("so")), tokenizer)

    assert marked(example, tokenizer) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n"
        "<|im_start|>user\nhow?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n"
    )
    assert (example.answer, example.question, example.answer_start) == ("yo", "hi", 12)


def test_a_last_answer_that_is_context_only_leaves_nothing_to_train_where_only_the_last_one_is_trained():
    sample = conversation("hi", "yo", "how?", kept_out("so"))

    with pytest.raises(RenderFault, match=r"train_on is last, and the last answer is kept out") as caught:
        tokenize(sample, tiny_tokenizer(), train_on="last")
    assert caught.value.field == "turn 3"
    for sample, text in (
        (conversation("hi", kept_out("yo")), CHATML),
        (conversation("hi", kept_out("yo"), kind="exchange"), None),
    ):
        with pytest.raises(RenderFault, match="no answer of this row is to be trained"):
            tokenize(sample, tiny_tokenizer(template=text))


# What a template does to answers


def test_marks_choose_what_counts_and_the_stop_token_always_does():
    tokenizer = zoo_tokenizer(template("bad_marks_without_stop"))

    assert marked(tokenize(ONE_TURN, tokenizer), tokenizer).endswith("assistant\n⟦yo<|im_end|>⟧\n")


SECOND_HALF = template("marked").replace(
    "message.content + '<|im_end|>' }}\n        {%- endgeneration %}",
    "message.content[2:] }}\n        {%- endgeneration %}{{- '<|im_end|>' }}",
).replace("{%- generation %}", "{{- message.content[:2] }}{%- generation %}")  # fmt: skip


def test_what_is_outside_the_marks_of_an_answer_does_not_count_but_a_token_on_their_border_does():
    tokenizer = zoo_tokenizer(SECOND_HALF)
    assert tokenizer.tokenize("user") == ["user"]

    assert marked(tokenize(conversation("hi", "yo user"), tokenizer), tokenizer).endswith("yo⟦ user<|im_end|>⟧\n")
    # the mark begins inside of "user"
    assert marked(tokenize(conversation("hi", "user"), tokenizer), tokenizer).endswith(
        "assistant\n⟦user<|im_end|>⟧\n"
    )


@pytest.mark.parametrize(
    ("name", "field", "reason"),
    [
        ("bad_marks_on_user", "turn 1", r"marks stand around 'hi<\|im_end\|>\\n', which is not the model's to write"),
        ("bad_marks_on_both", "turn 3", r"marks stand around 'how\?<\|im_end\|>\\n', which is not the model's"),
        ("bad_marks_in_macro", "", "stands inside a macro"),
        ("bad_no_stop", "", "does not end the assistant's turn with a control token"),
        ("bad_asks_otherwise", "turn 1", r"goes on with '<think>\\n' where the chat template writes 'yo<\|im_end\|>"),
    ],
)
def test_a_template_that_is_wrong_about_answers_is_refused_with_the_reason(name, field, reason):
    with pytest.raises(RenderFault, match=reason) as caught:
        tokenize(TWO_TURNS, zoo_tokenizer(template(name)))
    assert caught.value.field == field


def test_marks_that_leave_out_an_answer_are_refused():
    otherwise = "{%- endgeneration %}{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}"
    first_only = template("marked").replace("{%- endgeneration %}", otherwise)
    first_only = first_only.replace("{%- generation %}", "{%- if loop.index0 == 1 %}{%- generation %}")

    with pytest.raises(RenderFault, match="none of them is in this answer") as caught:
        tokenize(TWO_TURNS, zoo_tokenizer(first_only))
    assert caught.value.field == "turn 3"


def test_a_template_that_cuts_off_a_thought_is_refused_as_the_row_wants_it_learnt():
    sample = conversation("hi", "<think>hm</think>yo")

    with pytest.raises(RenderFault, match="leaves out or changes this answer's content, '<think>hm</think>yo'"):
        tokenize(sample, zoo_tokenizer(template("bad_cuts_thoughts")))


@pytest.mark.parametrize(
    ("fields", "what"),
    [({"reasoning_content": "because"}, "reasoning, 'because'"), (CALL, "tool call, 'find_order'")],
)
def test_a_template_that_knows_no_reasoning_or_calls_is_refused_for_rows_that_have_them(fields, what):
    sample = conversation("hi", Turn(role="assistant", content="yo", fields=fields))

    with pytest.raises(RenderFault, match=f"leaves out or changes this answer's {what}") as caught:
        tokenize(sample, tiny_tokenizer())
    assert caught.value.field == "turn 1"


def test_a_template_that_does_not_show_the_tools_is_refused_for_rows_that_have_them():
    with pytest.raises(RenderFault, match="does not show the model the tool 'find_order'"):
        tokenize(conversation("hi", "yo", tools=(TOOL,)), tiny_tokenizer())


def test_an_empty_thought_that_the_generation_prompt_writes_is_not_missed_in_the_answer():
    quiet = "{%- set enable_thinking = false %}" + template("qwen3")
    sample = conversation("hi", "<think>\n\n</think>\n\nyo")

    assert marked(tokenize(sample, zoo_tokenizer(quiet)), zoo_tokenizer(quiet)).endswith(
        "</think>\n\n⟦yo<|im_end|>⟧\n"
    )


def test_of_white_space_a_template_may_do_with_less_or_more_than_the_row():
    tokenizer = zoo_tokenizer(template("qwen3"))
    example = tokenize(conversation("hi", "<think>hm</think>\nyo"), tokenizer)

    assert marked(example, tokenizer).endswith("assistant\n⟦<think>\nhm\n</think>\n\nyo<|im_end|>⟧\n")


def test_an_unknown_character_at_the_end_is_not_taken_for_the_stop_token():
    tokenizer = tokenizer_of("wordpiece", "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert tokenizer("漢")["input_ids"] == [tokenizer.unk_token_id]
    assert tokenizer.unk_token_id in encoder(tokenizer).settings.control_ids

    with pytest.raises(RenderFault, match="does not end the assistant's turn with a control token"):
        tokenize(conversation("hi ", "漢"), tokenizer)


# Control tokens in what people say


@pytest.mark.parametrize(
    ("sample", "field", "whose"),
    [
        (conversation("hi<|im_end|>", "yo"), "turn 0", "the user's text"),
        (conversation("hi", "yo<|im_end|>"), "turn 1", "the assistant's text"),
        (conversation(Turn(role="system", content="a<s>"), Turn(role="user", content="b"), kept_out("c")), "turn 0",
         "the system's text"),
        (conversation("hi", Turn(role="assistant", content="yo", fields={"reasoning_content": "<|im_start|>"})),
         "turn 1", "the assistant's text"),
        (conversation("hi", Turn(role="assistant", content="", fields={"tool_calls": [{"function": {
            "name": "f", "arguments": {"a": ["<|im_start|>"]}}}]})), "turn 1", "the assistant's text"),
        (conversation("hi", "yo", tools=({"function": {"name": "f", "description": "<|endoftext|>"}},)), "tools",
         "a tool's description"),
        (conversation("a <|im_end|> b", kind="text"), "text", "the text"),
        (conversation("a", "b<s>", kind="exchange"), "turn 1", "the assistant's text"),
    ],
)  # fmt: skip
def test_a_row_whose_text_spells_a_control_token_is_refused_by_place(sample, field, whose):
    with pytest.raises(RenderFault, match=f"{whose} spells the control token '<") as caught:
        tokenize(sample, tiny_tokenizer())
    assert caught.value.field == field
    assert "data.allow_control_tokens: true" in caught.value.fix


def test_tokens_that_were_added_for_the_model_to_write_are_no_control_tokens():
    tokenizer = zoo_tokenizer(CHATML)
    assert tokenizer.convert_tokens_to_ids("<think>") in tokenizer.added_tokens_decoder

    example = tokenize(conversation("<think>?", "<think>hm</think>yo"), tokenizer)

    assert marked(example, tokenizer).endswith("assistant\n⟦<think>hm</think>yo<|im_end|>⟧\n")


def test_where_control_tokens_are_allowed_the_stop_is_still_the_real_end_of_the_turn():
    tokenizer = tiny_tokenizer()
    example = tokenize(conversation("hi", "a<|im_end|>b<|endoftext|>\n"), tokenizer, allow=True)

    assert marked(example, tokenizer).endswith("assistant\n⟦a<|im_end|>b<|endoftext|>\n<|im_end|>⟧\n")
    assert example.stop_id == IM_END


def test_another_spelling_that_a_normaliser_makes_a_control_token_of_is_refused_too():
    tokenizer = tokenizer_of("wordpiece", CHATML)
    tokenizer.backend_tokenizer.add_special_tokens([_lowercased("<stop>")])
    assert tokenizer.tokenize("a <STOP>") == ["a", "<stop>"]

    with pytest.raises(RenderFault, match="spells the control token '<stop>'"):
        tokenize(conversation("a <STOP>", "b"), tokenizer)


def _lowercased(token: str):
    return AddedToken(token, special=True, normalized=True)


def test_plain_text_that_spells_the_beginning_token_where_that_is_allowed_is_refused_for_having_two():
    with pytest.raises(RenderFault, match="BOS stands twice"):
        tokenize(conversation("<s>hi", kind="text"), tiny_tokenizer(bos=True), allow=True)


# Preference pairs, and what rows are kept under


def pair(chosen: str, rejected: str) -> Sample:
    content = Content(turns=conversation("hi", chosen).turns, rejected=conversation("hi", rejected).turns)
    return Sample(content=content, kind="chat", place="rows.jsonl:1")


def test_of_a_preference_pair_the_chosen_answer_is_encoded_and_the_rejected_one_is_checked_alike():
    tokenizer = tiny_tokenizer()

    assert tokenize(pair("yo", "no"), tokenizer) == tokenize(conversation("hi", "yo"), tokenizer)
    with pytest.raises(RenderFault, match="spells the control token") as caught:
        tokenize(pair("yo", "no<|im_end|>"), tokenizer)
    assert caught.value.field == "rejected, turn 1"


def test_the_digest_changes_with_all_that_decides_the_ids_and_with_the_date_only_where_the_template_reads_it():
    def digest(text, **changes) -> str:
        settings = encoder(zoo_tokenizer(text)).settings
        return dataclasses.replace(settings, **changes).digest

    for text, reads_today in ((CHATML, False), (template("llama3"), True)):
        assert digest(text) == digest(text)
        assert digest(text, train_on="last") != digest(text)
        assert digest(text, allow_control_tokens=True) != digest(text)
        assert digest(text, chat_template=text + " ") != digest(text)
        assert digest(text, control_ids=[]) != digest(text)
        assert (digest(text, today="2031-07-05") != digest(text)) == reads_today


def test_settings_survive_the_way_to_a_worker_process_as_json():
    settings = encoder(tiny_tokenizer()).settings
    arrived = EncoderSettings(**json.loads(json.dumps(dataclasses.asdict(settings))))

    assert arrived == settings
    assert arrived.digest == settings.digest


def test_padding_that_an_earlier_call_of_the_tokenizer_left_behind_changes_neither_digest_nor_ids():
    tokenizer = tiny_tokenizer()
    clean = encoder(tokenizer).settings
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.padding is not None

    assert encoder(tokenizer).settings == clean


def test_one_conversation_of_answers_is_one_sequence():
    assert len(examples(TWO_TURNS, tiny_tokenizer())) == 1
