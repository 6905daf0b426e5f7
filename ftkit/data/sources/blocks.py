"""Blocks of rows as JSON lines: what passes from the readers of files to the processes that tokenise."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ftkit.errors import Problem
from ftkit.json_lines import UnwritableError, json_line

Row = dict[str, Any]
Style = Literal["line", "index"]
MAX_ROW_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of one file, in order.

    Attributes:
        lines: One JSON object a line, each ended by a line feed; no blank lines.
        numbers: Of each line, its line or row number in the file.
        style: What the numbers count; see `place`.
        problems: Rows that cannot be read. They count as rows and are not among the lines.
    """

    lines: bytes
    numbers: list[int]
    style: Style
    problems: list[Problem] = field(default_factory=list)


class UnreadableError(Exception):
    """A file that cannot be read on; never shown by itself.

    Args:
        problem: What is wrong with it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def place(name: str, style: str, number: int) -> str:
    """Where a row stands: ``rows.jsonl:17`` by line from 1, ``rows.parquet[16]`` by position from 0."""
    return f"{name}:{number}" if style == "line" else f"{name}[{number}]"


def parse_line(raw: bytes, place: str) -> Row | Problem:
    """The row that a line of JSON holds, or what is wrong with it."""
    try:
        value = json.loads(raw.decode().rstrip())
    except UnicodeDecodeError as error:
        return not_utf8(place, raw[error.start])
    except ValueError as error:
        what = f"not valid JSON: {error}".replace("line 1 ", "")
        return Problem(where=place, what=what, fix="Each line must be one JSON object.")
    except RecursionError:
        return Problem(where=place, what="JSON nested too deeply to be a row")
    return as_row(value, place)


def as_row(value: Any, place: str) -> Row | Problem:
    """A parsed value if it is a row, else what is wrong with it."""
    if isinstance(value, dict):
        return value
    return Problem(where=place, what=f"is a {type(value).__name__}, not an object with named fields")


def not_utf8(place: str, byte: int) -> Problem:
    """The fault of text in another encoding."""
    return Problem(where=place, what=f"not UTF-8 text (byte 0x{byte:02x})", fix="Save the file as UTF-8.")


def blocks_of(
    rows: Iterable[tuple[int, Row | Problem]], name: str, style: Style, block_bytes: int
) -> Iterator[Block]:
    """Numbered rows as blocks of about ``block_bytes``.

    What cannot be read on ends the last block: the rows before it are kept, and its problem is among that block's.
    """
    lines: list[bytes] = []
    numbers: list[int] = []
    problems: list[Problem] = []
    size = 0
    source = iter(rows)
    while True:
        try:
            number, row = next(source)
        except StopIteration:
            break
        except UnreadableError as error:
            problems.append(error.problem)
            break
        line = row if isinstance(row, Problem) else to_line(row, place(name, style, number))
        if isinstance(line, Problem):
            problems.append(line)
        else:
            lines.append(line)
            numbers.append(number)
            size += len(line)
        if size >= block_bytes or len(problems) >= 1000:
            yield Block(lines=b"".join(lines), numbers=numbers, style=style, problems=problems)
            lines, numbers, problems, size = [], [], [], 0
    if lines or problems:
        yield Block(lines=b"".join(lines), numbers=numbers, style=style, problems=problems)


def to_line(row: Row, place: str) -> bytes | Problem:
    """One line of JSON for a row of another kind of file, or why there is none."""
    try:
        return json_line(row)
    except UnwritableError as error:
        where = f"{place}: {error.column}" if error.column else place
        return Problem(where=where, what=error.what, fix="Remove the column, or store it as text.")
