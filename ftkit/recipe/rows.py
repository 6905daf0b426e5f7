"""Rows given in Python in place of a file: written once to the cache, so that a recipe stays plain data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ftkit.cache import cache_folder
from ftkit.files import PARTIAL_PREFIX, sync_folder
from ftkit.json_lines import UnwritableError, json_line, without_nulls
from ftkit.nearest import nearest
from ftkit.recipe.base import ClashError


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
