"""What each row layout reads out of a row, how it is recognised, and every fault by field, with its remedy."""

from __future__ import annotations

import json

import pytest

from ftkit.data.formats import FORMATS, RowFault, detect_format
from ftkit.data.sample import Content, Turn
from ftkit.errors import DataError

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "yo"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def user(content: str) -> Turn:
    return Turn(role="user", content=content)


def assistant(content: str, *, train: bool = True, **fields) -> Turn:
    return Turn(role="assistant", content=content, train=train, fields=fields)


def read(name: str, row: dict) -> Content:
    return FORMATS[name].read(row)


def fault(name: str, row: dict) -> str:
    """The fault as ``field: what``, then its remedy in lines of their own."""
    with pytest.raises(RowFault) as caught:
        read(name, row)
    return "\n".join([f"{caught.value.field}: {caught.value.what}", *caught.value.fix.splitlines()])


def messages(*turns) -> Content:
    return read("messages", {"messages": list(turns)})


def messages_fault(*turns) -> str:
    return fault("messages", {"messages": list(turns)})


EMPTY = "is missing or empty\nFill it in, or remove the row."
EXCHANGE = Content(turns=(user("hi"), assistant("yo")))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", {"messages": [USER, ASSISTANT]}),
        ("messages", {"messages": [USER | {"name": None, "tool_calls": None, "weight": None}, ASSISTANT], "id": 7}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}),
        ("sharegpt", {"conversations": [{"from": "user", "value": "hi"}, {"from": "model", "value": "yo"}]}),
        ("alpaca", {"instruction": "hi", "input": "", "output": "yo", "system": None, "history": []}),
        ("alpaca", {"instruction": "hi", "output": "yo", "history": ""}),
        ("prompt-completion", {"prompt": "hi", "completion": "yo"}),
        ("prompt-completion", {"prompt": [USER], "completion": [ASSISTANT]}),
    ],
)
def test_one_question_and_answer_reads_the_same_from_every_layout(name, row):
    assert detect_format(row, "rows.jsonl:1") == name
    assert read(name, row) == EXCHANGE


# Messages.


def test_the_developers_role_is_the_systems():
    content = messages(SYSTEM | {"role": "developer"}, USER, ASSISTANT)

    assert content.turns[0] == Turn(role="system", content="Be brief.")


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i", "image_url": None}]

    assert messages(USER | {"content": parts}, ASSISTANT) == EXCHANGE


def test_a_tool_conversation_keeps_calls_with_arguments_as_objects_and_answers_with_their_id():
    row = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sunny"},
            ASSISTANT,
        ],
        "tools": [WEATHER],
    }
    expected = Content(
        turns=(
            user("hi"),
            assistant("", tool_calls=[CALLED]),
            Turn(role="tool", content="sunny", fields={"name": "weather", "tool_call_id": "c1"}),
            assistant("yo"),
        ),
        tools=(WEATHER,),
    )

    assert read("messages", row) == expected
    assert read("messages", row | {"tools": json.dumps([WEATHER])}) == expected


@pytest.mark.parametrize("arguments", [{}, "{}", "", " ", None])
def test_a_call_without_arguments_has_an_empty_object(arguments):
    call = {"function": {"name": "now", "arguments": arguments}}

    content = messages(USER, {"role": "assistant", "tool_calls": [call]})
    assert content.turns[1].fields == {
        "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {}}}]
    }


def test_no_tools_may_be_written_in_several_ways():
    for tools in (None, [], "", "[]"):
        assert read("messages", {"messages": [USER, ASSISTANT], "tools": tools}) == EXCHANGE


def test_a_bare_schema_gets_the_wrapping_that_a_client_would_send():
    bare = {"name": "weather", "parameters": {"type": "object", "properties": {}}}

    assert read("messages", {"messages": [USER, ASSISTANT], "tools": [bare]}).tools == (WEATHER,)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_thoughts_are_kept_for_the_template_under_the_name_that_engines_use(key):
    assert messages(USER, ASSISTANT | {key: "easy"}).turns[1] == assistant("yo", reasoning_content="easy")


@pytest.mark.parametrize(
    ("marks", "counts"),
    [
        ({}, True),
        ({"train": True}, True),
        ({"train": False}, False),
        ({"weight": 1}, True),
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"weight": 1, "train": True}, True),
        ({"weight": 0, "train": False}, False),
        ({"weight": None, "train": None}, True),
    ],
)
def test_marks_say_whether_an_answer_counts(marks, counts):
    content = messages(USER, ASSISTANT | marks, USER, ASSISTANT)

    assert [turn.train for turn in content.turns] == [True, counts, True, True]


def test_marks_that_leave_another_role_out_are_what_it_is_anyway():
    assert messages(USER | {"train": False}, SYSTEM | {"weight": 0}, ASSISTANT) == messages(USER, SYSTEM, ASSISTANT)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([USER], "messages: has no assistant turn, so there is no answer to learn\nAdd it, or remove the row."),
        ([ASSISTANT], "messages[0]: a conversation cannot begin with the assistant\nBegin with the user's turn."),
        (
            [USER, ASSISTANT | {"train": False}],
            "messages: every answer is marked as context only, so there is none to learn\n"
            "Mark one with train: true (or weight: 1), or remove the row.",
        ),
        ([USER, "yo"], "messages[1]: is a str, not an object with role and content"),
        ([USER, {"role": "assistant"}], f"messages[1].content: {EMPTY}"),
        ([USER, ASSISTANT | {"content": " "}], f"messages[1].content: {EMPTY}"),
        ([USER, ASSISTANT | {"content": 3}], "messages[1].content: is a int, not text\nPut the text in quotes."),
        ([{"content": "yo"}], f"messages[0].role: {EMPTY}"),
        (
            [USER, ASSISTANT | {"role": "asistant"}],
            "messages[1].role: 'asistant' is not one of system, user, assistant, tool\nDid you mean 'assistant'?",
        ),
        (
            [USER, ASSISTANT | {"content": [{"type": "image_url", "image_url": {}}]}],
            "messages[1].content: has parts that are not text: image_url\n"
            "Only text can be trained on; remove the part, or the row.",
        ),
        (
            [USER, ASSISTANT | {"content": "yo \ud83d"}],
            "messages[1].content: holds half of a surrogate pair, which is no text\nRemove the cut-off character.",
        ),
        (
            [USER, ASSISTANT | {"contnet": "x"}],
            "messages[1].contnet: is not a key of a message\nDid you mean 'content'?",
        ),
        (
            [USER, ASSISTANT | {"timestamp": 3}],
            "messages[1].timestamp: is not a key of a message\nIts keys: role, content, name, tool_calls, "
            "tool_call_id, reasoning_content, thinking, train, weight.",
        ),
        (
            [USER, ASSISTANT | {"weight": 0.5}],
            "messages[1].weight: 0.5 is not 0 or 1\n"
            "0 is context only, 1 counts. To see rows more often, give their file a weight under data.train.",
        ),
        (
            [USER, ASSISTANT | {"weight": True}],
            "messages[1].weight: True is not 0 or 1\n"
            "0 is context only, 1 counts. To see rows more often, give their file a weight under data.train.",
        ),
        ([USER, ASSISTANT | {"train": "no"}], "messages[1].train: 'no' is not true or false"),
        (
            [USER, ASSISTANT | {"weight": 1, "train": False}],
            "messages[1].weight: 1 contradicts train: false\nKeep one of the two.",
        ),
        (
            [USER | {"train": True}, ASSISTANT],
            "messages[0].train: a turn of the role user cannot be trained on\n"
            "Only the assistant's turns can. data.train_on: all counts every token of every row.",
        ),
        (
            [USER | {"weight": 1}, ASSISTANT],
            "messages[0].weight: a turn of the role user cannot be trained on\n"
            "Only the assistant's turns can. data.train_on: all counts every token of every row.",
        ),
        (
            [USER, ASSISTANT | {"thinking": "a", "reasoning_content": "b"}],
            "messages[1].thinking: is not what reasoning_content says\nKeep one of the two.",
        ),
        (
            [USER | {"thinking": "a"}, ASSISTANT],
            "messages[0].thinking: stands in a turn of the role user, not assistant",
        ),
        (
            [USER | {"tool_calls": [CALL]}, ASSISTANT],
            "messages[0].tool_calls: stands in a turn of the role user, not assistant",
        ),
        (
            [USER | {"tool_call_id": "c1"}, ASSISTANT],
            "messages[0].tool_call_id: stands in a turn of the role user, not tool",
        ),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_learnt_from_is_refused_by_field(turns, expected):
    assert messages_fault(*turns) == expected


@pytest.mark.parametrize("value", [[], "hi", None, {"role": "user"}])
def test_messages_that_are_no_list_are_refused(value):
    assert fault("messages", {"messages": value}) == "messages: is not a list of messages"


SHAPE = 'Write {"type": "function", "function": {"name": "...", "arguments": {...}}}.'


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ("weather", f"tool_calls: is not a list of tool calls\n{SHAPE}"),
        (["weather"], f"tool_calls[0]: is a str, not a tool call\n{SHAPE}"),
        ([{}], f"tool_calls[0].function: is missing, or no object\n{SHAPE}"),
        ([{"name": "weather", "arguments": {}}], f"tool_calls[0].function: is missing, or no object\n{SHAPE}"),
        ([CALL | {"type": "code"}], f"tool_calls[0].type: 'code' is not 'function', the one kind of tool\n{SHAPE}"),
        (
            [CALL | {"index": 0}],
            "tool_calls[0].index: is not a key of a tool call\nIts keys: id, type, function.",
        ),
        (
            [{"function": {"arguments": {}}}],
            "tool_calls[0].function.name: is missing or empty\nFill it in, or remove the row.",
        ),
        (
            [{"function": {"name": "f", "arguments": '{"city": }'}}],
            "tool_calls[0].function.arguments: not valid JSON: Expecting value (column 10)",
        ),
        (
            [{"function": {"name": "f", "arguments": "[1]"}}],
            "tool_calls[0].function.arguments: is a list, not an object of named arguments",
        ),
        (
            [{"function": {"name": "f", "arguments": "[" * 100_000}}],
            "tool_calls[0].function.arguments: JSON nested too deeply",
        ),
        (
            [{"function": {"name": "f", "arguments": '{"a": NaN}'}}],
            "tool_calls[0].function.arguments: holds NaN or an infinity, which JSON does not have\nRemove it.",
        ),
        (
            [{"function": {"name": "f", "arguments": '{"a": "\\ud83d"}'}}],
            "tool_calls[0].function.arguments: holds half of a surrogate pair, which is no text\n"
            "Remove the cut-off character.",
        ),
        (
            [{"function": {"name": "f", "argumnets": {}}}],
            "tool_calls[0].function.argumnets: is not a key of a called function\nDid you mean 'arguments'?",
        ),
    ],
)
def test_a_tool_call_that_is_none_is_refused_by_field(calls, expected):
    assert messages_fault(USER, {"role": "assistant", "tool_calls": calls}) == f"messages[1].{expected}"


TOOL_SHAPE = 'Write {"type": "function", "function": {"name": "...", "description": "...", "parameters": {...}}}.'


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ({"name": "f"}, f"tools: is not a list of tools\n{TOOL_SHAPE}"),
        ("[{]", "tools: not valid JSON: Expecting property name enclosed in double quotes (column 3)"),
        (["f"], f"tools[0]: is a str, not a function's schema\n{TOOL_SHAPE}"),
        ([{"type": "function"}], f"tools[0].function: is missing, or no object\n{TOOL_SHAPE}"),
        (
            [WEATHER | {"type": "code"}],
            f"tools[0].type: 'code' is not 'function', the one kind of tool\n{TOOL_SHAPE}",
        ),
        ([{"function": {"name": ""}}], "tools[0].function.name: is missing or empty\nFill it in, or remove the row."),
        (
            [{"function": {"name": "f", "description": 3}}],
            "tools[0].function.description: is a int, not text\nPut the text in quotes.",
        ),
        (
            [{"function": {"name": "f", "parameters": []}}],
            f"tools[0].function.parameters: is not an object: a JSON schema\n{TOOL_SHAPE}",
        ),
        ([WEATHER, WEATHER], "tools[1]: 'weather' is the name of an earlier tool\nKeep one of them."),
    ],
)
def test_a_tool_that_is_none_is_refused_by_field(tools, expected):
    assert fault("messages", {"messages": [USER, ASSISTANT], "tools": tools}) == expected


# ShareGPT.


def said(speaker: str, value: str, **marks) -> dict:
    return {"from": speaker, "value": value, **marks}


HUMAN, GPT = said("human", "hi"), said("gpt", "yo")


def test_sharegpt_reads_calls_observations_system_tools_and_marks():
    row = {
        "conversations": [
            HUMAN,
            said("gpt", "hm", weight=0),
            said("human", "so?"),
            said("function_call", '{"name": "weather", "arguments": {"city": "Bern"}}'),
            said("observation", "sunny"),
            said("bard", "yo", train=True, weight=None),
        ],
        "system": "Be brief.",
        "tools": json.dumps([WEATHER["function"]]),
    }

    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    assert read("sharegpt", row) == Content(
        turns=(
            Turn(role="system", content="Be brief."),
            user("hi"),
            assistant("hm", train=False),
            user("so?"),
            assistant("", tool_calls=[call]),
            Turn(role="tool", content="sunny"),
            assistant("yo"),
        ),
        tools=(WEATHER,),
    )


def test_several_calls_of_one_sharegpt_turn_are_a_list():
    value = '[{"name": "f", "arguments": "{}"}, {"name": "g"}]'
    turn = read("sharegpt", {"conversations": [HUMAN, said("function_call", value)]}).turns[1]

    assert [call["function"] for call in turn.fields["tool_calls"]] == [
        {"name": "f", "arguments": {}},
        {"name": "g", "arguments": {}},
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": "hi"}, "conversations: is not a list of turns"),
        ({"conversations": ["hi"]}, "conversations[0]: is a str, not an object with from and value"),
        (
            {"conversations": [USER, ASSISTANT]},
            "conversations[0].from: is missing; this is a message with a role\n"
            "Set data.columns: {messages: conversations}.",
        ),
        (
            {"conversations": [HUMAN | {"from": "humman"}, GPT]},
            "conversations[0].from: 'humman' is not one of system, human, user, gpt, chatgpt, bing, bard, assistant, "
            "model, function_call, tool, observation\nDid you mean 'human'?",
        ),
        (
            {"conversations": [HUMAN, GPT | {"markdown": "x"}]},
            "conversations[1].markdown: is not a key of a turn\nIts keys: from, value, train, weight.",
        ),
        ({"conversations": [HUMAN]}, "conversations: has no assistant turn, so there is no answer to learn\n"
         "Add it, or remove the row."),
        (
            {"conversations": [GPT]},
            "conversations[0]: a conversation cannot begin with the assistant\nBegin with the user's turn.",
        ),
        (
            {"conversations": [said("system", "s"), HUMAN, GPT], "system": "Be brief."},
            "system: is given, and the conversation has a system turn too\nKeep one of the two.",
        ),
        (
            {"conversations": [HUMAN, said("function_call", "weather(Bern)")]},
            "conversations[1].value: not valid JSON: Expecting value (column 1)",
        ),
        (
            {"conversations": [HUMAN, said("function_call", "[]")]},
            'conversations[1].value: is not a function call\nWrite {"name": "...", "arguments": {...}}.',
        ),
        (
            {"conversations": [HUMAN, said("function_call", '{"arguments": {}}')]},
            "conversations[1].value.name: is missing or empty\nFill it in, or remove the row.",
        ),
    ],
)  # fmt: skip
def test_a_sharegpt_row_that_cannot_be_read_is_refused_by_field(row, expected):
    assert fault("sharegpt", row) == expected


# Alpaca.


def test_alpaca_input_follows_the_instruction_after_an_empty_line():
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}

    assert read("alpaca", row) == Content(turns=(user("Add.\n\n1 and 2"), assistant("3")))


def test_alpaca_system_and_history_come_first():
    row = {"instruction": "c", "output": "d", "system": "Be brief.", "history": [["a", "b"]]}

    assert read("alpaca", row) == Content(
        turns=(Turn(role="system", content="Be brief."), user("a"), assistant("b"), user("c"), assistant("d"))
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": " ", "output": "d"}, "instruction: is missing or empty\nFill it in, or remove the row."),
        ({"instruction": "c", "output": None}, "output: is missing or empty\nFill it in, or remove the row."),
        (
            {"instruction": "c", "output": "d", "history": "a b"},
            "history: is a str, not a list of [question, answer]",
        ),
        ({"instruction": "c", "output": "d", "history": [["a"]]}, "history[0]: is not a pair [question, answer]"),
        (
            {"instruction": "c", "output": "d", "history": [["a", "b"], ["a", ""]]},
            "history[1][1]: is missing or empty\nFill it in, or remove the row.",
        ),
    ],
)
def test_an_alpaca_row_that_cannot_be_read_is_refused_by_field(row, expected):
    assert fault("alpaca", row) == expected


# Prompt and completion.


def test_answers_inside_a_prompt_are_context_unless_they_are_marked():
    row = {
        "prompt": [USER, ASSISTANT, USER, ASSISTANT | {"train": True}, USER | {"name": "Ada"}],
        "completion": [ASSISTANT],
        "tools": [WEATHER],
    }

    content = read("prompt-completion", row)
    assert [turn.train for turn in content.turns] == [True, False, True, True, True, True]
    assert content.tools == (WEATHER,)


ALIKE = "Give both as text, or both as lists of messages."


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "hi", "completion": [ASSISTANT]},
         f"prompt: is no list of messages, and completion is one\n{ALIKE}"),
        ({"prompt": [USER], "completion": "yo"}, f"completion: is no list of messages, and prompt is one\n{ALIKE}"),
        ({"prompt": "hi"}, "completion: is missing or empty\nFill it in, or remove the row."),
        ({"prompt": [USER], "completion": None}, "completion: is not a list of messages"),
        ({"prompt": [USER], "completion": [ASSISTANT | {"role": "assistent"}]},
         "completion[0].role: 'assistent' is not one of system, user, assistant, tool\nDid you mean 'assistant'?"),
        ({"prompt": [ASSISTANT], "completion": [ASSISTANT]},
         "prompt[0]: a conversation cannot begin with the assistant\nBegin with the user's turn."),
        ({"prompt": [USER, ASSISTANT], "completion": [USER]},
         "completion: every answer is marked as context only, so there is none to learn\n"
         "Mark one with train: true (or weight: 1), or remove the row."),
    ],
)  # fmt: skip
def test_a_prompt_and_completion_that_cannot_be_read_are_refused_by_field(row, expected):
    assert fault("prompt-completion", row) == expected


# Text.


def test_text_is_one_turn_of_its_own_role():
    assert read("text", {"text": "once"}) == Content(turns=(Turn(role="text", content="once"),))
    assert fault("text", {"text": ""}) == "text: is missing or empty\nFill it in, or remove the row."


# Preference.

WORSE = {"role": "assistant", "content": "no"}
PAIR = Content(turns=(user("hi"), assistant("yo")), rejected=(user("hi"), assistant("no")))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "yo", "rejected": "no"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [WORSE]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
        {"prompt": "hi", "chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
    ],
)
def test_a_preference_pair_reads_the_same_from_every_way_to_write_it(row):
    assert detect_format(row, "rows.jsonl:1") == "preference"
    assert read("preference", row) == PAIR


def test_what_a_pair_shares_is_context_and_what_follows_may_be_longer():
    row = {
        "chosen": [USER, ASSISTANT, USER, ASSISTANT],
        "rejected": [USER, ASSISTANT, USER, WORSE, USER, WORSE],
        "tools": [WEATHER],
    }

    assert read("preference", row) == Content(
        turns=(user("hi"), assistant("yo", train=False), user("hi"), assistant("yo")),
        rejected=(
            user("hi"), assistant("yo", train=False), user("hi"), assistant("no"), user("hi"), assistant("no"),
        ),
        tools=(WEATHER,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "hi", "chosen": "yo", "rejected": "yo"},
         "rejected: is the same as chosen, so neither is preferred\nRemove the row."),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
         "rejected: is the same as chosen, so neither is preferred\nRemove the row."),
        ({"chosen": "yo", "rejected": "no"}, "prompt: is missing or empty\nFill it in, or remove the row."),
        ({"prompt": "hi", "chosen": "yo", "rejected": ""},
         "rejected: is missing or empty\nFill it in, or remove the row."),
        ({"prompt": "hi", "chosen": "yo", "rejected": [WORSE]},
         f"chosen: is no list of messages, and rejected is one\n{ALIKE}"),
        ({"prompt": [USER], "chosen": "yo", "rejected": "no"},
         "chosen: is no list of messages, and prompt is one\nGive all three alike."),
        ({"prompt": [USER], "chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
         "chosen: begins with the prompt once more\nRemove the column prompt, or that part of both lists."),
        ({"prompt": "hey", "chosen": [USER, ASSISTANT], "rejected": [USER, WORSE]},
         "prompt: is text that no user's turn says\nRemove the column, or mend the row."),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER | {"content": "hey"}, WORSE]},
         "chosen: differs from the other conversation in turn 1, which is not the assistant's\n"
         "Both must be the same up to an answer of the assistant."),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT, USER, WORSE]},
         "chosen: is only the beginning of the other conversation\nGive both an answer of their own."),
        ({"chosen": [USER, ASSISTANT, USER], "rejected": [USER, WORSE]},
         "chosen: does not end with the assistant's answer\nEnd with it, or remove the row."),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER]},
         "rejected: has no assistant turn, so there is no answer to learn\nAdd it, or remove the row."),
        ({"chosen": [ASSISTANT], "rejected": [WORSE]},
         "chosen[0]: a conversation cannot begin with the assistant\nBegin with the user's turn."),
        ({"chosen": [USER, ASSISTANT, USER, ASSISTANT | {"train": False}],
          "rejected": [USER, ASSISTANT, USER, WORSE]},
         "chosen: every answer is marked as context only, so there is none to learn\n"
         "Mark one with train: true (or weight: 1), or remove the row."),
    ],
)  # fmt: skip
def test_a_pair_that_prefers_nothing_is_refused_by_field(row, expected):
    assert fault("preference", row) == expected


# Recognition.


@pytest.mark.parametrize(
    ("row", "fitting", "needs"),
    [
        ({"prompt": "a", "completion": "b", "text": "ab"}, "prompt-completion, text",
         "prompt-completion: prompt, completion; text: text"),
        ({"messages": [], "chosen": [], "rejected": []}, "messages, preference",
         "messages: messages; preference: chosen, rejected"),
    ],
)  # fmt: skip
def test_a_row_that_fits_two_formats_is_refused_and_both_are_named(row, fitting, needs):
    with pytest.raises(DataError) as caught:
        detect_format(row, "rows.jsonl:1")

    assert str(caught.value) == (
        f"rows.jsonl:1: fits several formats: {fitting}\n  Name one with data.format in the recipe ({needs})."
    )


def test_a_key_whose_value_is_null_decides_nothing_while_another_format_is_filled():
    row = {"messages": [USER, ASSISTANT], "text": None}

    assert detect_format(row, "rows.parquet[0]") == "messages"
    assert detect_format({"prompt": "a", "completion": None}, "rows.parquet[0]") == "prompt-completion"


LAYOUTS = (
    "Formats and the fields they need: messages: messages; sharegpt: conversations; alpaca: instruction, output; "
    "prompt-completion: prompt, completion; text: text; preference: chosen, rejected.\n"
    "  Name other columns in the recipe, for example columns: {prompt: question, completion: answer}."
)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"q": "hi", "reply": "yo"}, ""),
        ({"Messages": []}, "  Did you mean 'messages' where it has 'Messages'?\n"),
        ({"conversation": []}, "  Did you mean 'conversations' where it has 'conversation'?\n"),
        ({"Prompt": "a", "completion": "b"}, "  Did you mean 'prompt' where it has 'Prompt'?\n"),
    ],
)
def test_an_unknown_layout_names_its_fields_near_misses_and_what_every_format_needs(row, hint):
    with pytest.raises(DataError) as caught:
        detect_format(row, "rows.jsonl:1")

    assert str(caught.value) == (f"rows.jsonl:1: its fields ({', '.join(row)}) fit no format\n{hint}  {LAYOUTS}")
