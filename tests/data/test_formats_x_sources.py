"""Every row layout in every kind of source reads to the same content."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from ftkit.data.columns import Columns
from ftkit.data.formats import FORMATS, detect_format
from ftkit.data.sample import Content, Turn
from ftkit.data.sources import Source, open_files, parse_line, place, read_blocks
from ftkit.errors import Problem
from ftkit.recipe import DataSection

QUESTIONS = ["hi, you", 'Two\nlines\tand "quotes"', "Grüße 漢字 🙂"]
ANSWERS = ["yo", "form\x0cfeed, line\u2028separator", "next\x85line"]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content}


def turns(*contents: str, trained: bool = True) -> tuple[Turn, ...]:
    roles = ["user", "assistant"] * len(contents)
    return tuple(Turn(role=role, content=text) for role, text in zip(roles, contents, strict=False))


# A layout: its rows, and by hand what must be read out of them. Those of text alone can stand in CSV cells too.
Layout = tuple[str, list[dict], list[Content]]
EXCHANGES = [Content(turns=turns(question, answer)) for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
PAIRS = list(zip(QUESTIONS, ANSWERS, strict=True))
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}
CALLED = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": None}}}

LAYOUTS: dict[str, Layout] = {
    "messages": ("messages", [{"messages": [user(q), assistant(a)]} for q, a in PAIRS], EXCHANGES),
    # Messages of unequal keys, as Arrow stores them: every struct gets every key.
    "messages with tools": (
        "messages",
        [
            {
                "messages": [
                    user(q),
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "content": "t", "tool_call_id": "1"},
                    {**assistant(a), "weight": 1, "reasoning_content": "hm"},
                ],
                "tools": json.dumps([TOOL]),
            }
            for q, a in PAIRS
        ],
        [
            Content(
                turns=(
                    Turn(role="user", content=q),
                    Turn(role="assistant", content="", fields={"tool_calls": [CALLED]}),
                    Turn(role="tool", content="t", fields={"tool_call_id": "1"}),
                    Turn(role="assistant", content=a, fields={"reasoning_content": "hm"}),
                ),
                tools=(TOOL,),
            )
            for q, a in PAIRS
        ],
    ),
    "sharegpt": (
        "sharegpt",
        [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in PAIRS],
        EXCHANGES,
    ),
    "alpaca": ("alpaca", [{"instruction": q, "input": "", "output": a} for q, a in PAIRS], EXCHANGES),
    "alpaca with history": (
        "alpaca",
        [{"instruction": q, "output": a, "history": [["x", "y"]]} for q, a in PAIRS],
        [Content(turns=turns("x", "y", q, a)) for q, a in PAIRS],
    ),
    "prompt-completion": ("prompt-completion", [{"prompt": q, "completion": a} for q, a in PAIRS], EXCHANGES),
    "prompt-completion of messages": (
        "prompt-completion",
        [{"prompt": [user(q)], "completion": [assistant(a)]} for q, a in PAIRS],
        EXCHANGES,
    ),
    "text": (
        "text",
        [{"text": q} for q in QUESTIONS],
        [Content(turns=(Turn(role="text", content=q),)) for q in QUESTIONS],
    ),
    "preference": (
        "preference",
        [{"prompt": q, "chosen": a, "rejected": "no"} for q, a in PAIRS],
        [Content(turns=turns(q, a), rejected=turns(q, "no")) for q, a in PAIRS],
    ),
    "preference of messages": (
        "preference",
        [{"chosen": [user(q), assistant(a)], "rejected": [user(q), assistant("no")]} for q, a in PAIRS],
        [Content(turns=turns(q, a), rejected=turns(q, "no")) for q, a in PAIRS],
    ),
}  # fmt: skip
OF_TEXT_ALONE = {
    name
    for name, (_, rows, _) in LAYOUTS.items()
    if all(isinstance(cell, str) for row in rows for cell in row.values())
}


def as_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_separated(rows: list[dict], delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def as_arrow(rows: list[dict], open_writer: Callable) -> bytes:
    sink, table = pyarrow.BufferOutputStream(), pyarrow.Table.from_pylist(rows)
    with open_writer(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


FILES: dict[str, Callable[[list[dict]], bytes]] = {
    "rows.jsonl": as_lines,
    "rows.ndjson": as_lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": lambda rows: as_separated(rows, ","),
    "rows.tsv": lambda rows: as_separated(rows, "\t"),
    "rows.parquet": as_parquet,
    "rows.arrow": lambda rows: as_arrow(rows, pyarrow.ipc.new_file),
    "stream.arrow": lambda rows: as_arrow(rows, pyarrow.ipc.new_stream),
    "rows.feather": lambda rows: as_arrow(rows, pyarrow.ipc.new_file),
}
CODECS = {"": None, ".gz": "gzip", ".zst": "zstd"}


def read(source: Source, mapping: dict[str, str] | None = None) -> list[tuple[str, Content]]:
    """The recognised format and content of every row, the way all of ftkit reads them."""
    found = []
    columns = Columns(mapping)
    for file in open_files(source):
        for block in read_blocks(file):
            assert block.problems == []
            for number, line in zip(block.numbers, block.lines.removesuffix(b"\n").split(b"\n"), strict=True):
                row = parse_line(line, place(file.name, block.style, number))
                assert not isinstance(row, Problem)
                row = columns.apply(row)
                name = detect_format(row, file.name)
                found.append((name, FORMATS[name].read(row)))
    return found


def expected(layout: str) -> list[tuple[str, Content]]:
    name, _, contents = LAYOUTS[layout]
    return [(name, content) for content in contents]


def test_every_format_is_in_the_table():
    assert {name for name, _, _ in LAYOUTS.values()} == set(FORMATS)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (layout, name)
        for layout in LAYOUTS
        for name in FILES
        if layout in OF_TEXT_ALONE or not name.endswith(("csv", "tsv"))
    ],
)
def test_a_layout_reads_the_same_from_every_kind_of_file_packed_or_not(layout, name, suffix, tmp_path):
    content = FILES[name](LAYOUTS[layout][1])
    if (codec := CODECS[suffix]) is not None:
        content = pyarrow.Codec(codec).compress(content, asbytes=True)
    file = tmp_path / f"{name}{suffix}"
    file.write_bytes(content)

    assert read(Source(path=str(file))) == expected(layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_reads_the_same_from_a_folder(layout, tmp_path):
    rows = LAYOUTS[layout][1]
    (tmp_path / "a.jsonl").write_bytes(as_lines(rows[:1]))
    (tmp_path / "b.parquet").write_bytes(as_parquet(rows[1:2]))
    (tmp_path / "c.json").write_text(json.dumps(rows[2:]))
    (tmp_path / "README.md").write_text("about")

    assert read(Source(path=str(tmp_path))) == expected(layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_reads_the_same_from_a_saved_data_set(layout, tmp_path):
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    (folder / "data.arrow").write_bytes(as_arrow(LAYOUTS[layout][1], pyarrow.ipc.new_stream))
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}], "_split": "train"}')
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')

    assert read(Source(path=str(tmp_path / "saved"))) == expected(layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_reads_the_same_from_what_the_real_library_saves_and_from_its_data_sets(
    layout, tmp_path, monkeypatch
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    rows = datasets.Dataset.from_list(LAYOUTS[layout][1])
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    # A selection, which the library keeps as a table of indices beside the rows.
    swapped = rows.select([2, 1, 0])
    datasets.DatasetDict(train=swapped, test=rows).save_to_disk(tmp_path / "two")

    assert read(Source(path=str(tmp_path / "one"))) == expected(layout)
    assert read(Source(path=str(tmp_path / "two"))) == expected(layout)[::-1]
    assert read(Source(path=str(tmp_path / "two"), split="test")) == expected(layout)
    assert read(Source(path=DataSection(train=rows).train[0].path)) == expected(layout)
    assert read(Source(path=DataSection(train=swapped).train[0].path)) == expected(layout)[::-1]


class _Table:
    """What of ``datasets.Dataset`` is asked for: the names of its columns, and its rows one after the other."""

    def __init__(self, rows: list[dict]) -> None:
        self._rows = pyarrow.Table.from_pylist(rows).to_pylist()
        self.column_names = list(rows[0])

    def __iter__(self):
        return iter(self._rows)


@pytest.mark.parametrize("give", [list, tuple, _Table, pyarrow.Table.from_pylist])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_reads_the_same_from_rows_in_memory(layout, give, tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))

    section = DataSection(train=give(LAYOUTS[layout][1]))
    assert read(Source(path=section.train[0].path)) == expected(layout)


@pytest.mark.parametrize("name", FILES)
def test_other_column_names_and_templates_work_in_every_kind_of_file(name, tmp_path):
    rows = [{"q": q, "a": a, "text": "unrelated"} for q, a in PAIRS]
    (tmp_path / name).write_bytes(FILES[name](rows))
    mapping = {"instruction": "{{ q }}", "output": "a", "system": "So {{ text }}."}

    assert read(Source(path=str(tmp_path / name)), mapping) == [
        ("alpaca", Content(turns=(Turn(role="system", content="So unrelated."), *turns(q, a)))) for q, a in PAIRS
    ]


def test_lines_of_a_text_file_and_files_of_a_folder_are_plain_text(tmp_path: Path):
    (tmp_path / "rows.txt").write_text("\n\n".join(QUESTIONS[::2]) + "\n", encoding="utf-8")
    (tmp_path / "texts").mkdir()
    for number, question in enumerate(QUESTIONS):
        (tmp_path / "texts" / f"{number}.md").write_text(question, encoding="utf-8")

    assert read(Source(path=str(tmp_path / "rows.txt"))) == expected("text")[::2]
    assert read(Source(path=str(tmp_path / "texts"))) == expected("text")
