"""Parquet and Arrow (Feather) files, a few rows at a time.

Arrow gives every struct of a column the fields of all of them and fills those that a row lacks with null. Inside a
column such a null therefore means that the field is absent, and it is left out; a column's own null stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from ftkit.data.sources.blocks import Block, Row, UnreadableError, blocks_of
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.streams import open_seekable
from ftkit.errors import Problem
from ftkit.json_lines import without_nulls

ROWS_AT_ONCE = 256
_FILE_MAGIC = b"ARROW1"


def read_parquet(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of a Parquet file's rows."""
    return blocks_of(_rows(file, "Parquet", _parquet_batches), file.name, "index", block_bytes)


def read_arrow(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of the rows of an Arrow IPC file (Feather version 2) or stream (as `datasets` saves)."""
    return blocks_of(_rows(file, "Arrow", _arrow_batches), file.name, "index", block_bytes)


def _rows(
    file: DataFile, kind: str, open_batches: Callable[[Any], Iterable[Any]]
) -> Iterator[tuple[int, Row | Problem]]:
    index = 0
    try:
        with open_seekable(file) as source:
            for batch in open_batches(source):
                schema = pyarrow.schema([field.with_type(_in_microseconds(field.type)) for field in batch.schema])
                plain = batch if schema == batch.schema else batch.cast(schema, safe=False)
                structs = {field.name for field in schema if _has_struct(field.type)}
                for start in range(0, plain.num_rows, ROWS_AT_ONCE):
                    for row in plain.slice(start, ROWS_AT_ONCE).to_pylist():
                        for name in structs:
                            row[name] = without_nulls(row[name])
                        yield index, row
                        index += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UnreadableError(Problem(where=file.name, what=f"not a readable {kind} file: {error}")) from None


def _parquet_batches(source: Any) -> Iterator[Any]:
    with pyarrow.parquet.ParquetFile(source) as table:
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE)


def _arrow_batches(source: Any) -> Iterator[Any]:
    magic = source.read(len(_FILE_MAGIC))
    source.seek(0)
    if magic != _FILE_MAGIC:
        yield from pyarrow.ipc.open_stream(source)
        return
    reader = pyarrow.ipc.open_file(source)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _in_microseconds(kind: Any) -> Any:
    """The type with no nanoseconds in it, which Python's dates cannot hold."""
    types = pyarrow.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", tz=kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return pyarrow.duration("us")
    if types.is_time64(kind) and kind.unit == "ns":
        return pyarrow.time64("us")
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_in_microseconds(field.type)) for field in kind.fields])
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    return kind


def _has_struct(kind: Any) -> bool:
    if pyarrow.types.is_struct(kind) or pyarrow.types.is_map(kind):
        return True
    return pyarrow.types.is_nested(kind) and any(_has_struct(kind.field(at).type) for at in range(kind.num_fields))
