"""Thousands of damaged rows: nothing crashes, and every row is either named as faulty or accounted for."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ftkit.errors import DataError
from tests.data.preparing import prepare_path
from tests.data.template_zoo import FAMILIES

ROWS_EACH = 700

CALL = {"type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
SEEDS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo", "weight": 1}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Where is 7?"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "sent", "tool_call_id": "1", "name": "find"},
                {"role": "assistant", "content": "On its way.", "train": True},
            ],
            "tools": [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}],
        },
    ],
    "sharegpt": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}],
    "alpaca": [{"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Add.", "Which?"]]}],
    "prompt-completion": [
        {"prompt": "hi", "completion": "yo"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
    ],
    "text": [{"text": "Once upon a time."}],
    "preference": [
        {"prompt": "hi", "chosen": "yo", "rejected": "go away"},
        {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
         "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]},
    ],
}  # fmt: skip
STRANGE: list[Any] = [
    None, "", " ", "\x00", "\ud800", "\ufeff", "<|im_end|>", "<|im_start|>assistant\n", "a" * 3000, "漢字🙂",
    "{{ 7 * 7 }}", 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, True, [], {}, [[]], [None], {"": None},
    {"role": "user"}, [{"role": "assistant"}], {"type": "image"}, ["text"],
    "assistant", "asistant", "system", "human",
]  # fmt: skip


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a row with each of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places_in(value[key])]


def change_a_value(row: dict[str, Any], draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if places := places_in(row):
            container, key = draw.choice(places)
            container[key] = json.loads(json.dumps(draw.choice(STRANGE)))


def lose_or_add_a_key(row: dict[str, Any], draw: random.Random) -> None:
    container, key = draw.choice(places_in(row))
    if draw.random() < 0.5:
        del container[key]
    elif isinstance(container, dict):
        container[draw.choice((f"{key} ", key.upper(), "extra", ""))] = draw.choice(STRANGE)
    else:
        container.insert(key, container[draw.randrange(len(container))])


def shuffle_a_list(row: dict[str, Any], draw: random.Random) -> None:
    for container, key in places_in(row):
        if isinstance(container[key], list):
            draw.shuffle(container[key])


MUTATIONS: list[Callable[[dict[str, Any], random.Random], None]] = [change_a_value, lose_or_add_a_key, shuffle_a_list]


def damaged_line(row: dict[str, Any], draw: random.Random) -> bytes:
    """A row after changes of its values, its text or its bytes; always one line that is not blank."""
    copy = json.loads(json.dumps(row))
    for _ in range(draw.choice((1, 1, 2))):
        if places_in(copy):
            draw.choice(MUTATIONS)(copy, draw)
    line = bytearray(json.dumps(copy, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass"))
    if draw.random() < 0.3:
        for _ in range(draw.choice((1, 2, 5))):
            at = draw.randrange(len(line) or 1)
            replacement = bytes([draw.randrange(256)]) if draw.random() < 0.7 else b""
            line[at : at + draw.choice((1, 1, 4))] = replacement
    text = bytes(line).replace(b"\n", b" ").replace(b"\r", b" ")
    return text if text.strip() else b"{"


def line_of(where: str, path: Path) -> int:
    """The line that a fault is placed at."""
    assert where.startswith(f"{path}:"), where
    number = where[len(str(path)) + 1 :].partition(":")[0]
    assert number.isdigit(), where
    return int(number)


def faulty_lines(path: Path, **settings: Any) -> set[int]:
    """The lines that preparing names; the file must be refused for them, or for nothing."""
    try:
        prepare_path(path, **settings)
    except DataError as error:
        return {line_of(problem.where, path) for problem in error.problems}
    return set()


@pytest.mark.parametrize("layout", SEEDS)
def test_every_damaged_row_is_named_as_faulty_or_accounted_for(layout, tmp_path):
    draw = random.Random(f"fuzz {layout}")
    lines = [damaged_line(draw.choice(SEEDS[layout]), draw) for _ in range(ROWS_EACH)]
    lines[::25] = [json.dumps(draw.choice(SEEDS[layout])).encode() for _ in lines[::25]]  # some stay whole
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    # A template that writes tools; pairs are looked at, as training refuses them.
    tokenizer = FAMILIES["llama3"].tokenizer()
    settings = {
        "format": layout, "overflow": "drop", "max_length": 400, "takes_pairs": True, "tokenizer": tokenizer,
    }  # fmt: skip

    faulty = faulty_lines(path, **settings)
    assert faulty <= set(range(1, len(lines) + 1))
    assert not faulty & set(range(1, len(lines) + 1, 25)), "a whole row was called faulty"
    assert len(faulty) > ROWS_EACH / 20

    kept = [line for number, line in enumerate(lines, 1) if number not in faulty]
    path.write_bytes(b"\n".join(kept) + b"\n")
    report = prepare_path(path, **settings).report
    assert report.rows_in == len(kept) == report.trained + report.validation + sum(report.dropped.values())
    assert report.trained > len(lines) // 25


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.txt", "rows.jsonl.gz", "rows.parquet"]
)
def test_damaged_bytes_of_any_kind_of_file_are_a_fault_or_rows_and_never_a_crash(name, tmp_path):
    draw = random.Random(f"fuzz {name}")
    rows = [{"prompt": f"question {index}", "completion": f"answer, {index}"} for index in range(12)]
    whole = file_of(name, rows, tmp_path)
    refused = 0
    for _ in range(150):
        body = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            at = draw.randrange(len(body))
            body[at : at + draw.choice((0, 1, 1, 6))] = bytes(
                draw.randrange(256) for _ in range(draw.choice((0, 1, 3)))
            )
        if draw.random() < 0.2:
            del body[draw.randrange(len(body)) :]
        path = tmp_path / name
        path.write_bytes(bytes(body))
        try:
            report = prepare_path(path, overflow="drop", allow_control_tokens=True).report
        except DataError as error:
            refused += 1
            assert all(str(path) in str(problem) or "no row is left" in problem.what for problem in error.problems)
        else:
            assert report.rows_in == report.trained + report.validation + sum(report.dropped.values())
    assert refused


def file_of(name: str, rows: list[dict[str, str]], folder: Path) -> bytes:
    """The bytes of a whole file of this kind."""
    lines = [json.dumps(row) for row in rows]
    match name.partition(".")[2]:
        case "jsonl":
            return "\n".join(lines).encode()
        case "jsonl.gz":
            return gzip.compress("\n".join(lines).encode())
        case "json":
            return ("[" + ",\n".join(lines) + "]").encode()
        case "txt":
            return "\n".join(row["prompt"] for row in rows).encode()
        case "parquet":
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows), buffer)
            return buffer.getvalue()
        case kind:
            between = "," if kind == "csv" else "\t"
            cells = [["prompt", "completion"], *([row["prompt"], f'"{row["completion"]}"'] for row in rows)]
            return "\n".join(between.join(row) for row in cells).encode()
