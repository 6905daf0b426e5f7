"""A .json file: one list of objects, which is the only kind that has to be in memory as a whole.

Many a .json file holds an object a line instead. It is read as the JSON Lines that it is where that is certain: its
first line is a whole object and its second begins another, which no single JSON value can do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ftkit.data.sources.blocks import Block, Row, UnreadableError, as_row, blocks_of, not_utf8, place
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.jsonl import read_jsonl
from ftkit.data.sources.streams import CHUNK_BYTES, open_bytes
from ftkit.errors import Problem


def read_json(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of the list's items, or of the lines.

    Raises:
        UnreadableError: The file cannot be read.
    """
    if _is_lines(file):
        return read_jsonl(file, block_bytes)
    return blocks_of(_rows(file), file.name, "index", block_bytes)


def _is_lines(file: DataFile) -> bool:
    with open_bytes(file) as stream:
        head = bytes(stream.read(CHUNK_BYTES))
    lines = [line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    first, *others = [line for line in lines if line] or [b""]
    if not first.startswith(b"{") or not others or not others[0].startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _rows(file: DataFile) -> Iterator[tuple[int, Row | Problem]]:
    name = file.name
    with open_bytes(file) as stream:
        raw = b"".join(iter(lambda: stream.read(CHUNK_BYTES), b""))
    try:
        rows = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # Counted in what was decoded: "utf-8-sig" takes the BOM off first, and places then count from behind it.
        line = error.object[: error.start].count(b"\n") + 1
        raise UnreadableError(not_utf8(f"{name}:{line}", error.object[error.start])) from None
    except json.JSONDecodeError as error:
        raise UnreadableError(
            Problem(
                where=f"{name}:{error.lineno}",
                what=f"not valid JSON: {error.msg} (column {error.colno})",
                fix="A .json file holds one list of objects; one object a line is .jsonl.",
            )
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists without end
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UnreadableError(Problem(where=name, what=f"not valid JSON: {what}")) from None
    if not isinstance(rows, list):
        raise UnreadableError(Problem(where=name, what="is not a list of rows", fix="Write [ {...}, {...} ]."))
    for index, row in enumerate(rows):
        yield index, as_row(row, place(name, "index", index))
