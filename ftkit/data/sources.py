"""Rows out of files: JSONL, JSON, CSV, TSV and Parquet, each with the place it came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ftkit.errors import DataError, Problem

# A row, or what is wrong with it; and where it stands.
Row = dict[str, Any]
Placed = tuple[str, Row | Problem]


def _read_jsonl(path: Path) -> Iterator[Placed]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            place = f"{path}:{number}"
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                yield place, _as_row(json.loads(raw.decode("utf-8")), place)
            except UnicodeDecodeError as error:
                yield place, _not_utf8(place, raw, error)
            except ValueError as error:
                what = f"not valid JSON: {error}".replace("line 1 ", "")
                yield place, Problem(where=place, what=what, fix="Each line must be one JSON object.")
            except RecursionError:
                yield place, Problem(where=place, what="JSON nested too deeply to be a row")


def _read_json(path: Path) -> Iterator[Placed]:
    raw = path.read_bytes()
    try:
        rows = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        yield f"{path}:{line}", _not_utf8(f"{path}:{line}", raw, error)
        return
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        fix = "A .json file holds one list of objects; one object a line is .jsonl."
        yield place, Problem(where=place, what=f"not valid JSON: {error.msg} (column {error.colno})", fix=fix)
        return
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists without end
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        yield str(path), Problem(where=str(path), what=f"not valid JSON: {what}")
        return
    if not isinstance(rows, list):
        yield str(path), Problem(where=str(path), what="is not a list of rows", fix="Write [ {...}, {...} ].")
        return
    for index, row in enumerate(rows):
        place = f"{path}[{index}]"
        yield place, _as_row(row, place)


def _read_separated(path: Path, delimiter: str) -> Iterator[Placed]:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        yield f"{path}:{line}", _not_utf8(f"{path}:{line}", raw, error)
        return
    csv.field_size_limit(1 << 30)
    # Not str.splitlines: it also splits at form feeds and Unicode line separators, which may stand in any cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            place, line = f"{path}:{line}", reader.line_num + 1
            if header is None:
                header = cells
            elif cells and len(cells) != len(header):
                what = f"{len(cells)} cells in a row, {len(header)} in the header"
                yield place, Problem(where=place, what=what, fix='Put cells that hold the separator in "quotes".')
            elif cells:
                yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        place = f"{path}:{reader.line_num}"
        yield place, Problem(where=place, what=f"not valid CSV: {error}")


def _read_parquet(path: Path) -> Iterator[Placed]:
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            index = 0
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", row
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        yield str(path), Problem(where=str(path), what=f"not a readable Parquet file: {error}")


READERS: dict[str, Callable[[Path], Iterator[Placed]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": lambda path: _read_separated(path, ","),
    ".tsv": lambda path: _read_separated(path, "\t"),
    ".parquet": _read_parquet,
}


def data_files(path: str) -> list[Path]:
    """The files behind a recipe's source: one file, or all readable files below a folder.

    Raises:
        DataError: There is none, or its kind is unknown.
    """
    source = Path(path)
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.is_file() and file.suffix.lower() in READERS)
        if not files:
            raise DataError(f"{source}: holds no data files", fix=f"Readable kinds: {', '.join(READERS)}.")
        return files
    if not source.is_file():
        raise DataError(f"{source}: no such file or folder", fix="Check the path; it is relative to the recipe file.")
    if source.suffix.lower() not in READERS:
        raise DataError(f"{source}: unknown kind of file", fix=f"Readable kinds: {', '.join(READERS)}.")
    return [source]


def read_rows(file: Path) -> Iterator[Placed]:
    """Rows of one file in order, and a `Problem` in place of each that cannot be read."""
    return READERS[file.suffix.lower()](file)


def _as_row(value: Any, place: str) -> Row | Problem:
    if isinstance(value, dict):
        return value
    return Problem(where=place, what=f"is a {type(value).__name__}, not an object with named fields")


def _not_utf8(place: str, raw: bytes, error: UnicodeDecodeError) -> Problem:
    byte = raw[error.start]
    return Problem(where=place, what=f"not UTF-8 text (byte 0x{byte:02x})", fix="Save the file as UTF-8.")
