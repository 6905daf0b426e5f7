"""Bad rows: each fault with file, line, field and remedy, all of them in one pass."""

from __future__ import annotations

import json

import pytest

from ftkit.errors import DataError
from tests.data.preparing import chat, prepare_path, write_jsonl
from tests.tiny import tiny_tokenizer


def faults(path, **settings) -> list[str]:
    """Each problem's text, from the file's name on."""
    with pytest.raises(DataError) as caught:
        prepare_path(path, **settings)
    return [str(problem).replace(str(path), path.name) for problem in caught.value.problems]


def fault(path, **settings) -> str:
    (only,) = faults(path, **settings)
    return only


USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], "rows.jsonl:1: messages: has no assistant turn, so there is no answer to learn"),
        ([ASSISTANT], "rows.jsonl:1: messages[0]: a conversation cannot begin with the assistant"),
        ([], "rows.jsonl:1: messages: is not a list of messages"),
        ("hi", "rows.jsonl:1: messages: is not a list of messages"),
        ([USER, "yo"], "rows.jsonl:1: messages[1]: is a str, not an object with role and content"),
        ([USER, {"role": "assistant"}], "rows.jsonl:1: messages[1].content: is missing or empty"),
        ([USER, {"role": "assistant", "content": "  "}], "rows.jsonl:1: messages[1].content: is missing or empty"),
        ([USER, {"role": "assistant", "content": 3}], "rows.jsonl:1: messages[1].content: is a int, not text"),
        ([USER, {"content": "yo"}], "rows.jsonl:1: messages[1].role: is missing or empty"),
        (
            [USER, ASSISTANT | {"tool_calls": [{}]}],
            "rows.jsonl:1: messages[1].tool_calls[0].function: is missing, or no object",
        ),
        ([USER, ASSISTANT | {"content": [{"type": "image"}]}], "rows.jsonl:1: messages[1].content: has parts that"),
    ],
)
def test_a_conversation_that_cannot_be_learnt_from_is_refused_by_field(messages, expected, tmp_path):
    assert fault(write_jsonl(tmp_path / "rows.jsonl", [{"messages": messages}])).startswith(expected)


def test_an_unknown_role_is_shown_with_the_nearest_known_one(tmp_path):
    row = {"messages": [USER, {"role": "asistant", "content": "yo"}]}

    assert fault(write_jsonl(tmp_path / "rows.jsonl", [row])) == (
        "rows.jsonl:1: messages[1].role: 'asistant' is not one of system, user, assistant, tool\n"
        "  Did you mean 'assistant'?"
    )


def test_an_unknown_sharegpt_speaker_is_shown_with_the_nearest_known_one(tmp_path):
    row = {"conversations": [{"from": "humman", "value": "hi"}, {"from": "gpt", "value": "yo"}]}

    assert "conversations[0].from: 'humman' is not one of" in (
        message := fault(write_jsonl(tmp_path / "rows.jsonl", [row]))
    )
    assert "Did you mean 'human'?" in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_text_that_is_not_utf8_is_placed_by_line_and_byte(name, tmp_path):
    body = {
        "rows.jsonl": b'{"prompt": "a", "completion": "b"}\n{"prompt": "caf\xe9", "completion": "b"}\n',
        "rows.json": b'[\n{"prompt": "caf\xe9", "completion": "b"}]',
        "rows.csv": b"prompt,completion\ncaf\xe9,b\n",
    }[name]
    (tmp_path / name).write_bytes(body)

    assert fault(tmp_path / name) == f"{name}:2: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."


def test_half_a_surrogate_pair_is_refused_before_the_tokenizer_chokes_on_it(tmp_path):
    # What a program leaves that cut an emoji in two; JSON allows it, UTF-8 does not.
    rows = [chat("hi", "yo"), chat("hi \ud83d", "yo")]

    assert fault(write_jsonl(tmp_path / "rows.jsonl", rows)).startswith(
        "rows.jsonl:2: messages[0].content: holds half of a surrogate pair"
    )


@pytest.mark.parametrize("line", ['{"prompt": "a", "completion": }', '{"prompt": "a"', "[" * 200_000, "NaN"])
def test_invalid_json_is_placed_at_its_line(line, tmp_path):
    good = json.dumps(chat("hi", "yo"))
    (tmp_path / "rows.jsonl").write_text(f"{good}\n\n{line}\n{good}\n")

    assert fault(tmp_path / "rows.jsonl").startswith("rows.jsonl:3: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[\n{"prompt": "a",\n "completion": }]', "rows.json:3: not valid JSON: Expecting value (column 16)"),
        ('{"prompt": "a"}', "rows.json: is not a list of rows"),
        ('["a"]', "rows.json[0]: is a str, not an object with named fields"),
        ("[" * 200_000, "rows.json: not valid JSON: nested too deeply"),
        ("[" + "1" * 5000 + "]", "rows.json: not valid JSON: "),  # Python reads no number this long
    ],
)
def test_an_invalid_json_file_is_a_fault_and_not_a_crash(text, expected, tmp_path):
    (tmp_path / "rows.json").write_text(text)

    assert fault(tmp_path / "rows.json").startswith(expected)


@pytest.mark.parametrize(
    ("name", "text"), [("rows.jsonl", ""), ("rows.csv", "prompt,completion\n"), ("rows.json", "[]")]
)
def test_a_file_without_rows_is_refused(name, text, tmp_path):
    (tmp_path / name).write_text(text)

    assert fault(tmp_path / name).startswith(f"{name}: has no rows")


def test_a_wrong_count_of_cells_is_placed_at_the_line_where_its_row_begins(tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,completion\n"two\nlines",yo\nhi,there,yo\nhi\n')

    assert [text.splitlines()[0] for text in faults(tmp_path / "rows.csv")] == [
        "rows.csv:4: 3 cells in a row, 2 in the header",
        "rows.csv:5: 1 cells in a row, 2 in the header",
    ]


def test_a_quotation_mark_that_is_never_closed_is_a_fault(tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,completion\nhi,"yo\n')

    assert "rows.csv:2: not valid CSV" in fault(tmp_path / "rows.csv")


def test_all_faults_of_all_files_come_in_one_pass_each_with_its_place(tmp_path):
    (tmp_path / "data").mkdir()
    good = json.dumps(chat("hi", "yo"))
    (tmp_path / "data" / "a.jsonl").write_text(f'{good}\nnot json\n{{"messages": []}}\n{good}\n[]\n')
    (tmp_path / "data" / "b.csv").write_text("prompt,completion\nhi\n,yo\n")

    with pytest.raises(DataError) as caught:
        prepare_path(tmp_path / "data")

    places = [problem.where.removeprefix(f"{tmp_path}/data/") for problem in caught.value.problems]
    assert places == ["a.jsonl:2", "a.jsonl:3: messages", "a.jsonl:5", "b.csv:2", "b.csv:3: prompt"]


def test_faults_found_while_tokenising_come_in_one_pass_too(tmp_path):
    rows = [chat("hi", "yo"), chat("hi", "y" * 90), chat("hi", "yo"), chat("hi", "z" * 90)]

    found = faults(write_jsonl(tmp_path / "rows.jsonl", rows), max_length=64)
    assert [text.split(": ")[0] for text in found] == ["rows.jsonl:2", "rows.jsonl:4"]


def test_a_conversation_without_a_chat_template_is_refused_and_the_shipped_templates_are_named(tmp_path):

    path = write_jsonl(tmp_path / "rows.jsonl", [chat("hi", "yo")])
    assert fault(path, tokenizer=tiny_tokenizer(template=None)) == (
        "rows.jsonl:1: is a conversation, and this model's tokenizer has no chat template\n"
        "  Choose one with model.chat_template: chatml, plain, zephyr, or a Jinja file."
    )
