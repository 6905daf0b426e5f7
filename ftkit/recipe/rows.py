"""Rows given in Python in place of a file: written once to the cache, so that a recipe stays plain data.

Also how a row of any origin becomes a line of JSON.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ftkit.cache import cache_folder
from ftkit.files import PARTIAL_PREFIX, sync_folder
from ftkit.recipe.base import ClashError
from ftkit.recipe.nearest import nearest


class UnwritableError(ValueError):
    """A value that JSON cannot hold.

    Args:
        column: Where it stands in its row.
        what: The fault.
    """

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"{column}: {what}")
        self.column, self.what = column, what


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row as a line of JSON, in ASCII.

    Dates and times become ISO text, decimals text with all their digits, durations seconds, bytes text if they are
    UTF-8, and numbers that JSON does not have (NaN, infinities) null.

    Raises:
        UnwritableError: Naming the first column that holds something else.
    """
    try:
        return _ENCODER.encode(row).encode() + b"\n"
    except (TypeError, ValueError, RecursionError):
        pass  # the rare row: look at each column by itself
    clean = {str(name): _clean(str(name), value) for name, value in row.items()}
    try:
        return _ENCODER.encode(clean).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UnwritableError("", f"cannot be written as JSON: {error}") from None


def without_nulls(value: Any) -> Any:
    """A value without the null fields of its structs, which Arrow adds so that all structs have the same fields."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def are_rows(value: Any, source_keys: Collection[str]) -> bool:
    """Whether a recipe's source is given as rows: a table, or a list of mappings that do not describe sources.

    Args:
        value: What stands in place of a source.
        source_keys: What a mapping that describes a source may hold.
    """
    if _is_table(value):
        return True
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(item, Mapping) for item in value):
        return False
    if any("path" in item or not set(item) - set(source_keys) for item in value):
        return False
    # {pth: rows.jsonl, weight: 2} is a source with a slip of the pen.
    return not all(_is_misspelt(set(item) - set(source_keys)) for item in value)


def store_rows(rows: Iterable[Mapping[str, Any]] | Any) -> str:
    """Write rows to the cache as JSON lines under the digest of their content.

    Args:
        rows: Mappings, or a table: a ``datasets.Dataset``, an Arrow table.

    Returns:
        The path of the file; equal rows always give the same one.

    Raises:
        ClashError: There are none, one is no mapping or holds what JSON cannot, or the cache cannot be written.
    """
    folder = cache_folder() / "rows"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, prefix=PARTIAL_PREFIX)
        try:
            digest = hashlib.sha256()
            with os.fdopen(handle, "wb") as stream:
                for line in _lines(rows):
                    digest.update(line)
                    stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            path = folder / f"{digest.hexdigest()}.jsonl"
            Path(partial).replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(partial).unlink()
        sync_folder(folder)
    except OSError as error:
        raise ClashError(f"rows given in Python cannot be written to {folder}: {error.strerror or error}") from None
    return str(path)


def _lines(rows: Any) -> Iterator[bytes]:
    number = -1
    for number, row in enumerate(_from_table(rows) if _is_table(rows) else rows):
        if not isinstance(row, Mapping):
            raise ClashError(f"row {number} is a {type(row).__name__}, not a mapping of names to values")
        try:
            yield json_line(row)
        except UnwritableError as error:
            raise ClashError(f"row {number}: {error}") from None
    if number < 0:
        raise ClashError("has no rows")


def _is_table(value: Any) -> bool:
    # By what it offers: no library of tables is imported where recipes are read.
    return hasattr(value, "column_names") and (hasattr(value, "to_pylist") or hasattr(value, "__iter__"))


def _from_table(table: Any) -> Iterator[Any]:
    if isinstance(table, Mapping):
        raise ClashError(f"is a dictionary of splits ({', '.join(map(str, table))}); give one of them")
    for row in table if hasattr(table, "__iter__") else table.to_pylist():
        named = isinstance(row, Mapping)
        yield {name: without_nulls(value) for name, value in row.items()} if named else row


def _is_misspelt(unknown: set[str]) -> bool:
    return len(unknown) == 1 and nearest(str(*unknown), ["path"]) is not None


def _clean(column: str, value: Any) -> Any:
    try:
        clean = _without_nan(value)
        _ENCODER.encode(clean)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UnwritableError(column, f"holds bytes that are not UTF-8 text (byte 0x{byte:02x})") from None
    except RecursionError:
        raise UnwritableError(column, "is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise UnwritableError(column, str(error)) from None
    return clean


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # of NaN, every comparison is false
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return value


def _plain(value: Any) -> Any:
    """What JSON has no word for, as text or number."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    if callable(getattr(value, "tolist", None)):  # numbers and arrays of NumPy
        return _without_nan(value.tolist())
    raise TypeError(f"holds a {type(value).__name__}, which is neither text nor number")


# ASCII, so that half a surrogate pair survives until the check that names its field.
_ENCODER = json.JSONEncoder(allow_nan=False, default=_plain, separators=(",", ":"))
