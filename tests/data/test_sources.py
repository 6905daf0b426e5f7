"""Every file kind and every row layout gives the same samples, each with its place."""

from __future__ import annotations

import csv
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from ftkit.data.formats import FORMATS
from ftkit.data.prepare import prepare
from ftkit.data.sources import data_files, read_rows
from ftkit.errors import DataError, Problem
from ftkit.recipe import DataSection
from tests.data.preparing import prepare_path, prepare_rows, write_jsonl
from tests.tiny import tiny_tokenizer

# A quotation mark, a separator, a line break inside a cell, letters beyond ASCII, and line separators that Python's
# str.splitlines takes for ends of lines and no spreadsheet does.
PAIRS = [
    {"prompt": "What is 1, 2?", "completion": 'It is "three".'},
    {"prompt": "Two\nlines,\tand a tab", "completion": "Grüße 漢字 🙂"},
    {"prompt": "form\x0cfeed and line\u2028separator", "completion": "next\x85line"},
]


def separated(delimiter: str, *, quoting: int = csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["prompt", "completion"], delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(PAIRS)
    return stream.getvalue()


def write_pairs(folder, suffix: str):
    file = folder / f"pairs{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), file)
        return file
    texts = {
        ".jsonl": "\n".join(json.dumps(row) for row in PAIRS) + "\n\n",
        ".ndjson": "\ufeff" + "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in PAIRS),
        ".json": json.dumps(PAIRS, indent=1),
        ".csv": "\ufeff" + separated(","),
        ".tsv": separated("\t", quoting=csv.QUOTE_ALL),
    }
    file.write_bytes(texts[suffix].encode())
    return file


def contents(path):
    return [row for file in data_files(str(path)) for _, row in read_rows(file)]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows_and_the_same_examples(suffix, tmp_path):
    file = write_pairs(tmp_path, suffix)

    assert contents(file) == PAIRS
    assert prepare_path(file).report.digest == prepare_rows(tmp_path, PAIRS).report.digest


def test_a_folder_gives_its_data_files_in_order_of_their_names_and_skips_other_files(tmp_path):
    (tmp_path / "data" / "b").mkdir(parents=True)
    write_jsonl(tmp_path / "data" / "a.jsonl", PAIRS[:1])
    write_jsonl(tmp_path / "data" / "b" / "a.jsonl", PAIRS[1:])
    (tmp_path / "data" / "README.md").write_text("not data")

    assert contents(tmp_path / "data") == PAIRS
    assert prepare_path(tmp_path / "data").report.digest == prepare_rows(tmp_path, PAIRS).report.digest


def test_places_are_lines_of_text_files_and_positions_of_the_others(tmp_path):
    def places(suffix):
        file = write_pairs(tmp_path, suffix)
        return [place.removeprefix(str(file)) for place, _ in read_rows(file)]

    assert places(".jsonl") == [":1", ":2", ":3"]
    assert places(".csv") == [":2", ":3", ":5"]  # the second row's first cell holds a line break
    assert places(".json") == places(".parquet") == ["[0]", "[1]", "[2]"]


LAYOUTS = {
    "messages": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
    "alpaca": {"instruction": "hi", "input": "", "output": "yo"},
    "prompt-completion": {"prompt": "hi", "completion": "yo"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_and_gives_the_same_example(name, tmp_path):
    prepared = prepare_rows(tmp_path, [LAYOUTS[name]])

    assert [file.format for file in prepared.report.files] == [name]
    assert prepared.report.digest == prepare_rows(tmp_path, [LAYOUTS["messages"]]).report.digest


def test_the_layouts_above_and_plain_text_are_all_there_are():
    assert set(FORMATS) == {*LAYOUTS, "text"}


def test_alpaca_input_follows_the_instruction_after_an_empty_line(tmp_path):
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    same = {"prompt": "Add.\n\n1 and 2", "completion": "3"}

    assert prepare_rows(tmp_path, [row]).report.digest == prepare_rows(tmp_path, [same]).report.digest


def test_prompt_and_completion_may_be_lists_of_messages(tmp_path):
    both = LAYOUTS["messages"]["messages"]
    row = {"prompt": both[:1], "completion": both[1:]}

    assert prepare_rows(tmp_path, [row]).report.digest == prepare_rows(tmp_path, [LAYOUTS["messages"]]).report.digest


def test_content_given_as_text_parts_is_their_concatenation(tmp_path):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "yo"}]}

    assert prepare_rows(tmp_path, [row]).report.digest == prepare_rows(tmp_path, [LAYOUTS["messages"]]).report.digest


def test_columns_give_other_names_to_a_formats_keys(tmp_path):
    # The file's own column "completion" is something else and must not be taken.
    rows = [{"question": "hi", "reply": "yo", "completion": "99 %", "id": 7}]
    prepared = prepare_rows(tmp_path, rows, columns={"prompt": "question", "completion": "reply"})

    assert prepared.report.digest == prepare_rows(tmp_path, [LAYOUTS["messages"]]).report.digest


def test_where_a_named_column_is_missing_a_column_with_the_formats_own_name_does_not_stand_in(tmp_path):
    rows = [{"question": "hi", "reply": "yo"}, {"question": "hi", "completion": "99 %"}]

    with pytest.raises(DataError, match=r"rows\.jsonl:2: completion: is missing or empty"):
        prepare_rows(tmp_path, rows, columns={"prompt": "question", "completion": "reply"})


def test_a_source_has_its_own_format_columns_and_row_limit(tmp_path):
    first = write_jsonl(tmp_path / "a.jsonl", [{"q": "hi", "a": "yo", "text": "x"}] * 3)
    second = write_jsonl(tmp_path / "b.jsonl", [LAYOUTS["alpaca"]])
    sources = [
        {"path": str(first), "format": "prompt-completion", "columns": {"prompt": "q", "completion": "a"},
         "max_rows": 2},
        {"path": str(second)},
    ]  # fmt: skip
    section = DataSection.model_validate({"train": sources, "validation": None})
    report = prepare(section, tiny_tokenizer(), bos_wanted=False, template_names=[]).report

    assert [(file.format, file.rows) for file in report.files] == [("prompt-completion", 2), ("alpaca", 1)]
    assert (report.rows_in, report.duplicates) == (3, 2)


def test_a_row_that_fits_two_formats_is_refused_until_one_is_named(tmp_path):
    row = {"prompt": "hi", "completion": "yo", "text": "hiyo"}

    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: fits several formats: prompt-completion, text\n.*data\.format"
    ):
        prepare_rows(tmp_path, [row])
    assert prepare_rows(tmp_path, [row], format="prompt-completion").report.trained == 1


def test_an_unknown_layout_names_its_fields_all_formats_and_the_columns_setting(tmp_path):
    with pytest.raises(DataError) as caught:
        prepare_rows(tmp_path, [{"question": "hi", "reply": "yo"}])

    message = str(caught.value)
    assert "rows.jsonl:1: its fields (question, reply) fit no format" in message
    assert all(name in message for name in FORMATS)
    assert "columns: {prompt: question, completion: answer}" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.jsonl", "no such file or folder"), ("notes.docx", "unknown kind of file"), ("empty", "no data files")],
)
def test_paths_that_hold_no_data_are_refused(name, message, tmp_path):
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match=message):
        prepare_path(tmp_path / name)


def test_a_damaged_parquet_file_is_a_problem_and_not_a_crash(tmp_path):
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"PAR1 but nothing more")

    ((_, problem),) = read_rows(file)
    assert isinstance(problem, Problem)
    assert "not a readable Parquet file" in problem.what
