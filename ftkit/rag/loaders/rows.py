"""CSV, TSV and JSON Lines: one document a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ftkit.data.sources import DataFile, parse_line, place, read_blocks
from ftkit.data.sources.blocks import Row
from ftkit.errors import Problem
from ftkit.rag.document import Document, Value
from ftkit.rag.loaders.markdown import scalar
from ftkit.rag.loaders.reading import normalised
from ftkit.units import format_bytes

# All documents are held in memory; a million rows of 1,000 bytes.
MAX_BYTES = 1 << 30
_KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def load_rows(path: Path, name: str) -> Iterator[Document | Problem]:
    """One document a row, called ``NAME#ID`` by its ``id`` column, or by its number from 1 where that is empty.

    A column ``text`` is the text, and the others are metadata (lists and objects as JSON text). Without one, the text
    is a line ``column: value`` for each column that has a value, and ``title`` alone is metadata too. Cells that a
    row of CSV lacks at its end are empty.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        what = f"has {format_bytes(size)}, more than {format_bytes(MAX_BYTES)}"
        yield Problem(where=str(path), what=what, fix="Split it, and index the parts one after the other.")
        return
    lines: dict[str, int] = {}  # of each id
    for number, line, row in _numbered(path):
        where = place(str(path), "line", line)
        document = row if isinstance(row, Problem) else _document(row, number, where, name)
        if isinstance(document, Problem):
            yield document
        elif (first := lines.setdefault(document.id, line)) != line:
            what = f"the id {document.id.partition('#')[2]!r} stands in line {first} and in line {line}"
            yield Problem(where=where, what=what, fix="Give each row an id of its own.")
        else:
            yield document


def _numbered(path: Path) -> Iterator[tuple[int, int, Row | Problem]]:
    """Each row with its number and its line, from 1; rows that cannot be read are numbered too."""
    kind = _KINDS[path.suffix.lower()]
    number = 0
    # Rows of CSV come in blocks of one, so that it is known which row an unreadable one stands before.
    for block in read_blocks(
        DataFile(path=path, name=str(path), kind=kind, fills_short_rows=True),
        block_bytes=1 << 20 if kind == "jsonl" else 1,
    ):
        for problem in block.problems:
            number += 1
            yield number, 0, problem
        for line, raw in zip(block.numbers, block.lines.split(b"\n"), strict=False):
            number += 1
            yield number, line, parse_line(raw, place(str(path), "line", line))


def _document(row: Row, number: int, where: str, name: str) -> Document | Problem:
    row_id = row.get("id")
    if isinstance(row_id, (bool, float, list, dict)):
        what = f"id: {json.dumps(row_id)[:40]} is neither text nor a whole number"
        return Problem(where=where, what=what, fix="Write it as text.")
    others = {key: scalar(value) for key, value in row.items() if key not in ("id", "text")}
    metadata: dict[str, Value] = others
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str):
            return Problem(where=where, what=f"text: {json.dumps(text)[:40]} is not text", fix="Write it as text.")
    else:
        text = "\n".join(f"{key}: {value}" for key, value in others.items() if value is not None and value != "")
        metadata = {key: value for key, value in others.items() if key == "title"}
    if not text.strip():
        return Problem(where=where, what="holds no text", fix="Fill it in, or remove the row.")
    label = str(number) if row_id is None or row_id == "" else str(row_id)
    document = Document(id=f"{name}#{label}", text=normalised(text), metadata=metadata)
    what = _unwritable(document)
    return Problem(where=where, what=what, fix="Write the character that is meant, as UTF-8.") if what else document


def _unwritable(document: Document) -> str:
    """What no file or encoder takes, of what JSON's escapes can say."""
    if "\0" in document.text or "\0" in document.id:
        return "holds a zero character"
    try:
        json.dumps([document.id, document.text, document.metadata], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no character"
    return ""
