"""Files into blocks of rows: places, streaming, archives, folders, saved data sets, and every fault in words."""

from __future__ import annotations

import datetime
import decimal
import gzip
import itertools
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.sources import Block, DataFile, Source, open_files, parse_line, place, read_blocks
from ftkit.data.sources import blocks as blocks_module
from ftkit.errors import DataError, MissingPartError, Problem

ROWS = [{"a": 1}, {"a": 2}, {"a": 3}]
LINES = b'{"a":1}\n{"a":2}\n{"a":3}\n'


def blocks(path: Path, block_bytes: int = 1 << 20, **settings) -> list[Block]:
    return [
        block
        for file in open_files(Source(path=str(path), **settings))
        for block in read_blocks(file, block_bytes=block_bytes)
    ]


def placed(path: Path, **settings) -> list[tuple[str, dict]]:
    """Every row that can be read, with its place from the source's own folder on."""
    return [
        (place(file.name, block.style, number).removeprefix(str(path)).removeprefix("/"), json.loads(line))
        for file in open_files(Source(path=str(path), **settings))
        for block in read_blocks(file)
        for number, line in zip(block.numbers, block.lines.splitlines(), strict=True)
    ]


def rows(path: Path, **settings) -> list[dict]:
    return [row for _, row in placed(path, **settings)]


def problems(path: Path, block_bytes: int = 1 << 20) -> list[str]:
    """Every fault of a file in words, from the file's name on; those of JSON lines too, which are parsed later."""
    found = []
    for file in open_files(Source(path=str(path))):
        for block in read_blocks(file, block_bytes=block_bytes):
            parsed = [
                parse_line(line, place(file.name, block.style, number))
                for number, line in zip(block.numbers, block.lines.removesuffix(b"\n").split(b"\n"), strict=False)
            ]
            found += [*(row for row in parsed if isinstance(row, Problem)), *block.problems]
    return [str(problem).replace(str(path), path.name) for problem in found]


def refusal(path: Path | str, **settings) -> str:
    with pytest.raises(DataError) as caught:
        open_files(Source(path=str(path), **settings))
    return str(caught.value)


# JSON Lines: passed through.


def test_lines_pass_through_as_they_are_without_blank_ones_and_bom(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xa9" }\r\n\n \t\r\n not json\n{"a":2}')

    # What follows the last line feed is a line too, and gets one.
    assert blocks(file) == [
        Block(lines=b'{"a": "\xc3\xa9" }\r\n not json\n', numbers=[1, 4], style="line"),
        Block(lines=b'{"a":2}\n', numbers=[5], style="line"),
    ]


@given(
    texts=st.lists(
        st.sampled_from([b"", b" ", b"{}", b'{"a": 1}', b"[1, 2]", b"\r", b'{"long": "' + b"x" * 40 + b'"}'])
    ),
    block_bytes=st.integers(1, 60),
    ended=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_lines_and_their_numbers_do_not_depend_on_the_size_of_blocks(tmp_path_factory, texts, block_bytes, ended):
    file = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    file.write_bytes(b"\n".join(texts) + (b"\n" if ended else b""))

    found = [
        (number, line)
        for block in blocks(file, block_bytes)
        for number, line in zip(block.numbers, block.lines.removesuffix(b"\n").split(b"\n"), strict=True)
    ]
    assert found == [(number, text) for number, text in enumerate(texts, start=1) if text.strip()]


def test_blocks_hold_about_as_many_bytes_as_asked_and_never_a_part_of_a_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(b'{"n":%04d}\n' % number for number in range(1000)))

    found = blocks(file, block_bytes=110)
    assert {len(block.numbers) for block in found} <= {9, 10, 11}
    assert [block.lines[-1:] for block in found] == [b"\n"] * len(found)


def test_a_line_that_would_fill_the_memory_ends_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("ftkit.data.sources.streams.MAX_ROW_BYTES", 1 << 20)
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b"{}\n" + b"0" * (3 << 20)))

    assert problems(file, block_bytes=1 << 16) == [
        "rows.jsonl.gz: has a line of more than 1 MiB\n  A row must fit into memory many times."
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": 1} \r\n', {"a": 1}),
        (b'{"a": }', "x:1: not valid JSON: Expecting value: column 7 (char 6)\n  Each line must be one JSON object."),
        (b'{"a": 1\n', "x:1: not valid JSON: Expecting ',' delimiter: column 8 (char 7)\n"
                       "  Each line must be one JSON object."),
        (b"NaN", "x:1: is a float, not an object with named fields"),
        (b"[1]", "x:1: is a list, not an object with named fields"),
        (b'{"a": "caf\xe9"}', "x:1: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."),
        (b"[" * 200_000, "x:1: JSON nested too deeply to be a row"),
    ],
)  # fmt: skip
def test_a_line_is_parsed_where_it_is_taken(raw, expected):
    found = parse_line(raw, "x:1")

    assert (str(found) if isinstance(found, Problem) else found) == expected


# Places.


def test_places_are_lines_of_text_files_and_positions_of_the_others():
    assert place("a.csv", "line", 3) == "a.csv:3"
    assert place("a.parquet", "index", 0) == "a.parquet[0]"


# A quotation mark, a separator, a line break inside a cell, letters beyond ASCII, and line separators that Python's
# str.splitlines takes for ends of lines and no spreadsheet does.
PAIRS = [
    {"prompt": "What is 1, 2?", "completion": 'It is "three".'},
    {"prompt": "Two\nlines,\tand a tab", "completion": "Grüße 漢字 🙂"},
    {"prompt": "form\x0cfeed and line\u2028separator", "completion": "next\x85line"},
]
CSV = (
    "prompt,completion\n"
    '"What is 1, 2?","It is ""three""."\n'
    '"Two\nlines,\tand a tab",Grüße 漢字 🙂\n'
    "form\x0cfeed and line\u2028separator,next\x85line\n"
)


@pytest.mark.parametrize("text", [CSV, "\ufeff" + CSV, CSV.rstrip("\n")])
def test_csv_rows_are_placed_at_the_line_that_they_begin_on(text, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_bytes(text.encode())

    assert rows(file) == PAIRS
    assert [number for block in blocks(file) for number in block.numbers] == [2, 3, 5]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_csv_lines_may_end_as_on_any_system_and_blank_ones_are_skipped(ends, tmp_path):
    (tmp_path / "rows.tsv").write_bytes(ends.join(["a\tb", "1\t2", "", "3\t4"]).encode())

    assert rows(tmp_path / "rows.tsv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert blocks(tmp_path / "rows.tsv")[0].numbers == [2, 4]


def test_a_csv_file_is_cut_nowhere_by_the_pieces_that_it_is_read_in(tmp_path, monkeypatch):
    monkeypatch.setattr("ftkit.data.sources.separated.CHUNK_BYTES", 7)
    (tmp_path / "pairs.csv").write_bytes(CSV.encode())
    (tmp_path / "latin.csv").write_bytes(b"a,b\nx,y\nx,y\nx,caf\xe9\n")

    assert rows(tmp_path / "pairs.csv") == PAIRS
    assert problems(tmp_path / "latin.csv") == ["latin.csv:4: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]


# Faults of whole files.


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("rows.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n',
         ["rows.jsonl:2: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.json", b'[\n{"a": "caf\xe9"}]',
         ["rows.json:2: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.json", b'\xef\xbb\xbf[\n{"a": "caf\xe9"}]',
         ["rows.json:2: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.csv", b"a,b\nx,y\ncaf\xe9,b\n", ["rows.csv:3: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.txt", b"a\ncaf\xe9\nb", ["rows.txt:2: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.md", b"a\ncaf\xe9\nb", ["rows.md:1: not UTF-8 text (byte 0xe9)\n  Save the file as UTF-8."]),
        ("rows.json", b'[\n{"a": "a",\n "b": }]',
         ["rows.json:3: not valid JSON: Expecting value (column 7)\n"
          "  A .json file holds one list of objects; one object a line is .jsonl."]),
        ("rows.json", b'[{"a": 1}]\n{"a": 2}',
         ["rows.json:2: not valid JSON: Extra data (column 1)\n"
          "  A .json file holds one list of objects; one object a line is .jsonl."]),
        ("rows.json", b'{"data": [{"a": 1}]}', ["rows.json: is not a list of rows\n  Write [ {...}, {...} ]."]),
        ("rows.json", b'["a", {"a": 1}, 3]', ["rows.json[0]: is a str, not an object with named fields",
                                            "rows.json[2]: is a int, not an object with named fields"]),
        ("rows.json", b"[" * 200_000, ["rows.json: not valid JSON: nested too deeply"]),
        ("rows.csv", b'a,b\n"two\nlines",yo\nhi,there,yo\nhi\n',
         ['rows.csv:4: 3 cells in a row, 2 in the header\n  Put cells that hold the separator in "quotes".',
          'rows.csv:5: 1 cells in a row, 2 in the header\n  Put cells that hold the separator in "quotes".']),
        ("rows.csv", b'a,b\nhi,"yo\n', ["rows.csv:2: not valid CSV: unexpected end of data"]),
        ("rows.csv", b"a,b,a\n1,2,3\n",
         ["rows.csv:1: the header names 'a' twice\n  Rename or remove one of the two columns."]),
        ("rows.parquet", b"PAR1 but nothing more",
         ["rows.parquet: not a readable Parquet file: Parquet magic bytes not found in footer. Either the file is "
          "corrupted or this is not a parquet file."]),
        ("rows.arrow", b"", ["rows.arrow: not a readable Arrow file: Tried reading schema message, was null or "
                             "length 0"]),
        ("rows.jsonl.gz", b"no archive",
         ["rows.jsonl.gz: not a readable gzip archive: zlib inflate failed: incorrect header check\n"
          "  It is damaged or cut off; get it again."]),
        ("rows.parquet.zst", b"no archive",
         ["rows.parquet.zst: not a readable zstd archive: ZSTD decompress failed: Unknown frame descriptor\n"
          "  It is damaged or cut off; get it again."]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_a_problem_with_its_place(name, body, expected, tmp_path):
    (tmp_path / name).write_bytes(body)

    assert problems(tmp_path / name) == expected


def test_a_number_of_thousands_of_digits_is_a_fault_and_not_a_crash(tmp_path):
    (tmp_path / "rows.json").write_text("[" + "1" * 5000 + "]")

    (problem,) = problems(tmp_path / "rows.json")
    assert problem.startswith("rows.json: not valid JSON: ")


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \n"),
        ("a.csv", b""),
        ("a.csv", b"a,b\n"),
        ("a.json", b"[]"),
        ("a.txt", b"\n"),
    ],
)
def test_a_file_without_rows_has_no_blocks(name, body, tmp_path):
    (tmp_path / name).write_bytes(body)

    assert blocks(tmp_path / name) == []


def test_rows_before_a_fault_are_kept(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"a\n1\n2\ncaf\xe9\n3\n")

    (block,) = blocks(tmp_path / "rows.csv")
    assert block.lines == b'{"a":"1"}\n{"a":"2"}\n'
    assert [problem.where.rpartition("/")[2] for problem in block.problems] == ["rows.csv:4"]


def test_a_file_that_may_not_be_read_is_a_problem(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(LINES)
    found = open_files(Source(path=str(file)))
    file.unlink()

    ((block,),) = ([*read_blocks(one)] for one in found)
    assert [str(problem) for problem in block.problems] == [f"{file}: cannot be read: No such file or directory"]


# Archives.


def packed(suffix: str, content: bytes) -> bytes:
    return pyarrow.Codec({".gz": "gzip", ".zst": "zstd"}[suffix]).compress(content, asbytes=True)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_archive_cut_off_anywhere_gives_the_whole_rows_before_and_a_problem(suffix, tmp_path):
    lines = [b'{"n":%d,"x":"%s"}\n' % (number, os.urandom(300).hex().encode()) for number in range(3000)]
    whole = packed(suffix, b"".join(lines))
    file = tmp_path / f"rows.jsonl{suffix}"
    for part in (0.3, 0.9, 1 - 3 / len(whole)):
        file.write_bytes(whole[: int(part * len(whole))])
        found = blocks(file, block_bytes=1 << 16)

        read = b"".join(block.lines for block in found)
        assert b"".join(lines).startswith(read)
        assert read.endswith(b"\n")
        assert [str(problem) for block in found for problem in block.problems] == [
            f"{file}: not a readable {'gzip' if suffix == '.gz' else 'zstd'} archive: Truncated compressed stream\n"
            "  It is damaged or cut off; get it again."
        ]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_archives_put_one_after_the_other_are_one(suffix, tmp_path):
    file = tmp_path / f"rows.jsonl{suffix}"
    file.write_bytes(packed(suffix, LINES) + packed(suffix, LINES))

    assert rows(file) == ROWS + ROWS


# Values that JSON has no word for.

VALUES = pyarrow.table({
    "when": pyarrow.array([datetime.datetime(2024, 5, 6, 7, 8, 9), None]),
    "exact": pyarrow.array([1577934245123456789, None], pyarrow.timestamp("ns", tz="UTC")),
    "day": pyarrow.array([datetime.date(2024, 5, 6), None]),
    "took": pyarrow.array([datetime.timedelta(seconds=90), None]),
    "price": pyarrow.array([decimal.Decimal("1.50"), None]),
    "bytes": pyarrow.array(["é".encode(), None]),
    "number": pyarrow.array([float("nan"), float("inf")]),
    "word": pyarrow.array(["u", "v"]).dictionary_encode(),
    "map": pyarrow.array([[("k", "v")], []], pyarrow.map_(pyarrow.string(), pyarrow.string())),
})  # fmt: skip


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_values_that_json_has_no_word_for_become_text_or_null(suffix, tmp_path):
    file = tmp_path / f"rows{suffix}"
    write_table(VALUES, file)

    assert rows(file) == [
        {"when": "2024-05-06T07:08:09", "exact": "2020-01-02T03:04:05.123456+00:00", "day": "2024-05-06",
         "took": 90.0, "price": "1.50", "bytes": "é", "number": None, "word": "u", "map": [["k", "v"]]},
        {"when": None, "exact": None, "day": None, "took": None, "price": None, "bytes": None, "number": None,
         "word": "v", "map": []},
    ]  # fmt: skip


def write_table(table, file: Path, *, stream: bool = False) -> None:
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
        return
    open_writer = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with open_writer(str(file), table.schema) as writer:
        writer.write_table(table)


def test_bytes_that_are_no_text_are_a_problem_of_their_row_and_column(tmp_path):
    file = tmp_path / "rows.parquet"
    write_table(pyarrow.table({"text": ["a", "b", "c"], "image": [b"ok", b"\x89PNG", b"ok"]}), file)

    (block,) = blocks(file)
    assert block.numbers == [0, 2]
    assert [str(problem).replace(str(file), "rows.parquet") for problem in block.problems] == [
        "rows.parquet[1]: image: holds bytes that are not UTF-8 text (byte 0x89)\n"
        "  Remove the column, or store it as text."
    ]


def test_fields_that_arrow_adds_to_structs_are_left_out_again_and_a_columns_null_stays(tmp_path):
    # What Parquet makes of messages of which one has a weight, and of arguments of two functions.
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "weight": 0}]
    arguments = [{"city": "Bern"}, {"day": "today"}]
    table = pyarrow.Table.from_pylist([{"messages": messages, "calls": arguments, "note": None}])
    assert table.to_pylist()[0]["messages"][0] == {"role": "user", "content": "hi", "weight": None}
    write_table(table, tmp_path / "rows.parquet")

    assert rows(tmp_path / "rows.parquet") == [{"messages": messages, "calls": arguments, "note": None}]


def test_numbers_of_a_parquet_file_run_on_over_its_row_groups_and_blocks(tmp_path):
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": list(range(1000))}), file, row_group_size=300)

    found = blocks(file, block_bytes=100)
    assert len(found) > 10
    assert [number for block in found for number in block.numbers] == list(range(1000))
    assert [row["n"] for row in rows(file)] == list(range(1000))


def test_half_a_surrogate_pair_reaches_the_check_that_names_its_field(tmp_path):
    (tmp_path / "rows.json").write_text('[{"text": "cut \\ud83d"}]')

    ((_, row),) = placed(tmp_path / "rows.json")
    assert row == {"text": "cut \ud83d"}


# Text.


def test_a_text_file_gives_a_row_a_line_and_a_markdown_file_one_row(tmp_path):
    (tmp_path / "notes.txt").write_bytes("\ufeffone\r\n\n  two\x0c \u2028\nthree".encode())
    (tmp_path / "notes.md").write_bytes("\ufeff# One\n\ntwo\n".encode())

    assert placed(tmp_path / "notes.txt") == [
        (":1", {"text": "one"}), (":3", {"text": "  two\x0c \u2028"}), (":4", {"text": "three"}),
    ]  # fmt: skip
    assert placed(tmp_path / "notes.md") == [(":1", {"text": "# One\n\ntwo\n"})]


def test_a_folder_of_texts_gives_a_row_a_file(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("two\nlines\n")
    (tmp_path / "a.md").write_text("# One")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "picture.png").write_bytes(b"no")

    assert placed(tmp_path) == [("a.md:1", {"text": "# One"}), ("b/c.txt:1", {"text": "two\nlines\n"})]


def test_a_text_too_long_for_one_row_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("ftkit.data.sources.prose.MAX_ROW_BYTES", 1 << 20)
    (tmp_path / "notes.md").write_bytes(b"x" * ((1 << 20) + 1))

    assert problems(tmp_path / "notes.md") == [
        "notes.md: is a text of more than 1 MiB, too much for one row\n  Split it, or name it by itself as a .txt."
    ]


# Folders.


def test_a_folder_gives_its_data_files_in_order_of_their_names_and_skips_what_is_no_data(tmp_path):
    (tmp_path / "b" / ".git").mkdir(parents=True)
    (tmp_path / "b" / "a.JSONL").write_bytes(LINES[8:])
    (tmp_path / "a.csv").write_text("a\n0\n")
    for name in ("README.md", "readme_en.md", "LICENSE.txt", "LICENSE", "SOURCE.txt", "License-MIT.md", "x.png"):
        (tmp_path / name).write_text("not data")
    for hidden in (".rows.jsonl", "b/.git/rows.jsonl"):
        (tmp_path / hidden).write_text("not data")

    assert placed(tmp_path) == [("a.csv:2", {"a": "0"}), ("b/a.JSONL:1", {"a": 2}), ("b/a.JSONL:2", {"a": 3})]


@pytest.mark.parametrize("text", ["notes.txt", "sources.md", "deep/notes.txt.gz"])
def test_a_folder_with_rows_and_texts_is_refused_for_it_could_mean_either(text, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    (tmp_path / text).write_bytes(b"what is this?")

    assert refusal(tmp_path) == (
        f"{tmp_path}: holds rows (rows.jsonl) and texts ({text})\n"
        "  Name the files to train on, or a folder with one of the two."
    )


READABLE = (
    "Readable kinds: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .feather, .txt, .md, each also with .gz "
    "or .zst; a folder that datasets saved."
)


def test_paths_that_hold_no_data_are_refused(tmp_path):
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "noext.gz").write_text("x")
    (tmp_path / "empty").mkdir()

    assert refusal(tmp_path / "notes.docx") == f"{tmp_path}/notes.docx: unknown kind of file\n  {READABLE}"
    assert refusal(tmp_path / "noext.gz") == f"{tmp_path}/noext.gz: unknown kind of file\n  {READABLE}"
    assert refusal(tmp_path / "empty") == f"{tmp_path}/empty: holds no data files\n  {READABLE}"


def test_a_path_that_is_nowhere_names_the_nearest_and_says_how_each_reading_is_written(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(LINES)
    (tmp_path / "data" / "tickets").mkdir()
    monkeypatch.chdir(tmp_path)
    readings = (
        "  A path is relative to the recipe file, of an override to the current folder.\n"
        "  A data set of the hub is written owner/name; set its revision (such as main) to make that plain."
    )

    assert refusal("data/trian.jsonl") == (
        "data/trian.jsonl: no such file or folder, and no hub id of a data set\n"
        f"  Did you mean 'data/train.jsonl'?\n{readings}"
    )
    assert "Did you mean 'data/tickets'?" in refusal("data/ticket")
    assert refusal("/nowhere/at/all.csv") == (
        f"/nowhere/at/all.csv: no such file or folder, and no hub id of a data set\n{readings}"
    )
    assert "no such file or folder" in refusal("x" * 5000)
    assert "no such file or folder" in refusal("a\0b")


@pytest.mark.parametrize("key", ["revision", "subset", "split"])
def test_what_only_a_hubs_data_set_has_is_refused_where_it_would_be_ignored(key, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(LINES)

    for path in (tmp_path / "rows.jsonl", tmp_path):
        assert refusal(path, **{key: "main"}) == (
            f"{path}: is on this machine, and {key} is for data sets of the hub\n  Remove {key}."
        )


# Folders that `datasets` saved.


def save(folder: Path, tables: list[list[dict]], *, split: str | None = None, **state) -> None:
    """As ``Dataset.save_to_disk`` writes them: shards in Arrow's stream format, and a state."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(tables):05d}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        write_table(pyarrow.Table.from_pylist(table), folder / name, stream=True)
    state = {"_data_files": [{"filename": name} for name in names], "_split": split, **state}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def save_splits(folder: Path, **splits: list[dict]) -> Path:
    for name, table in splits.items():
        save(folder / name, [table], split=name)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def test_a_saved_data_set_gives_its_shards_in_order(tmp_path):
    save(tmp_path / "saved", [ROWS[:2], ROWS[2:]], split="train")

    assert placed(tmp_path / "saved") == [
        ("data-00000-of-00002.arrow[0]", {"a": 1}), ("data-00000-of-00002.arrow[1]", {"a": 2}),
        ("data-00001-of-00002.arrow[0]", {"a": 3}),
    ]  # fmt: skip
    assert rows(tmp_path / "saved", split="train") == ROWS


def test_of_saved_splits_the_named_one_is_taken_else_train_else_the_only_one(tmp_path):
    both = save_splits(tmp_path / "both", test=ROWS[:1], train=ROWS[1:])
    one = save_splits(tmp_path / "one", validation=ROWS)

    assert rows(both) == ROWS[1:]
    assert rows(both, split="test") == ROWS[:1]
    assert rows(one) == ROWS
    assert [file.part for file in open_files(Source(path=str(both)))] == ["train"]


def test_a_split_that_is_not_there_is_refused_and_those_that_are_are_listed(tmp_path):
    both = save_splits(tmp_path / "both", test=ROWS, validation=ROWS)
    save(tmp_path / "single", [ROWS], split="test")

    assert refusal(both, split="tset") == f"{both}: has no split 'tset'\n  Did you mean 'test'?"
    assert refusal(both, split="x") == f"{both}: has no split 'x'\n  Its splits: test, validation."
    assert refusal(both) == (
        f"{both}: has no split called train, and none was named\n"
        f"  Name one of its splits: {{path: {both}, split: ...}}. It has: test, validation."
    )
    assert refusal(tmp_path / "single", split="train") == (
        f"{tmp_path}/single: is one saved split (test), not 'train'\n  Leave split away."
    )
    assert refusal(both, subset="x") == (
        f"{both}: is on this machine, and subset is for data sets of the hub\n  Remove subset."
    )


def test_a_damaged_saved_data_set_is_refused_with_the_file_that_is_wrong(tmp_path):
    save(tmp_path / "outside", [ROWS], _data_files=[{"filename": "../../secret.arrow"}])
    save(tmp_path / "gone", [ROWS], _data_files=[{"filename": "gone.arrow"}])
    save(tmp_path / "unlisted", [ROWS], _data_files=None)
    save(tmp_path / "selected", [ROWS], _indices_files=[{"filename": "indices.arrow"}])
    save(tmp_path / "broken", [ROWS])
    (tmp_path / "broken" / "state.json").write_text("{")

    assert "'../../secret.arrow' points outside its folder" in refusal(tmp_path / "outside")
    assert f"{tmp_path}/gone/gone.arrow: is missing, and state.json lists it" in refusal(tmp_path / "gone")
    assert f"{tmp_path}/unlisted/state.json: does not list data files" in refusal(tmp_path / "unlisted")
    assert "was saved as a selection by an old version of datasets" in refusal(tmp_path / "selected")
    assert f"{tmp_path}/broken/state.json: cannot be read" in refusal(tmp_path / "broken")


# What reaches the hub at all (the hub itself: test_hub.py).


@pytest.mark.parametrize(
    ("path", "settings"),
    [("owner/name", {}), ("squad", {"split": "train"}), ("squad", {"revision": "main"}), ("squad", {"subset": "x"})],
)
def test_a_path_that_is_nowhere_and_looks_like_a_hub_id_or_is_called_one_goes_to_the_hub(
    path, settings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("ftkit.data.sources.find.hub_files", lambda source: asked.append(source) or [])

    open_files(Source(path=path, **settings))
    assert [source.path for source in asked] == [path]


@pytest.mark.parametrize("path", ["squad", "data/train.jsonl", "data/train.csv.gz", "/owner/name", "./x/y", "a/b/c"])
def test_other_paths_never_go_to_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ftkit.data.sources.find.hub_files", lambda source: pytest.fail(f"{source} is no hub id"))

    assert "no such file or folder" in refusal(path)


# Blocks.


def test_problems_travel_in_blocks_of_bounded_size_too(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "1\n" * 2500)

    assert [len(block.problems) for block in blocks(tmp_path / "rows.csv")] == [1000, 1000, 500]


def test_rows_are_read_while_they_are_taken_and_not_before(tmp_path, monkeypatch):
    taken = []
    original = blocks_module.to_line
    monkeypatch.setattr(blocks_module, "to_line", lambda row, place: taken.append(place) or original(row, place))
    write_table(pyarrow.table({"n": list(range(10_000))}), tmp_path / "rows.parquet")
    (file,) = open_files(Source(path=str(tmp_path / "rows.parquet")))

    first = next(read_blocks(file, block_bytes=100))
    assert len(taken) == len(first.numbers) < 20


def test_a_data_file_knows_its_kind_compression_and_name(tmp_path):
    names = {
        "a.ndjson": ("jsonl", None), "b.JSON.GZ": ("json", "gzip"), "c.tsv.zst": ("tsv", "zstd"),
        "d.feather": ("arrow", None), "e.txt": ("lines", None), "f.v2.md": ("document", None),
    }  # fmt: skip
    for name, (kind, compression) in names.items():
        path = tmp_path / name
        path.write_bytes(b"")
        assert open_files(Source(path=str(path))) == [
            DataFile(path=path, name=str(path), kind=kind, compression=compression)
        ]


def test_without_the_package_the_hub_is_a_missing_part_with_the_command_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)

    with pytest.raises(MissingPartError) as caught:
        open_files(Source(path="owner/name"))
    assert str(caught.value) == (
        "owner/name: no such file or folder, and a data set of the hub needs the package datasets\n"
        "  Run: pip install 'ftkit[hub]' (or 'ftkit[all]')"
    )
    assert caught.value.exit_code == 6


def test_every_kind_of_file_is_listed_once():
    from ftkit.data.sources.kinds import KINDS

    suffixes = [suffix for kind in KINDS.values() for suffix in kind.suffixes]
    assert sorted(set(suffixes)) == sorted(suffixes)
    assert not any(one.endswith(other) for one, other in itertools.permutations(suffixes, 2))


def test_a_json_file_with_an_object_a_line_is_read_as_the_lines_that_it_is(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n{"text": }\n')

    (block,) = blocks(path)

    assert (block.numbers, block.style) == ([1, 3, 4], "line")


def test_what_a_folder_holds_about_its_data_is_none_of_it(tmp_path):
    for name in ("README.md", "SOURCE.txt", "my-LICENSE.txt", "a.txt"):
        (tmp_path / name).write_text("words")

    assert [file.path.name for file in open_files(Source(path=str(tmp_path)))] == ["a.txt"]


def test_a_folder_with_nothing_but_other_kinds_says_so(tmp_path):
    (tmp_path / "0001.xml").write_text("<a/>")
    (tmp_path / "LICENSE.txt").write_text("words")

    with pytest.raises(DataError, match=r"holds no data files \(but 1 others, such as 0001\.xml\)"):
        open_files(Source(path=str(tmp_path)))
