"""The kinds of data files: one file each, and the table that lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ftkit.data.sources.blocks import Block
from ftkit.data.sources.columnar import read_arrow, read_parquet
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.json_list import read_json
from ftkit.data.sources.jsonl import read_jsonl
from ftkit.data.sources.prose import read_document, read_lines
from ftkit.data.sources.separated import read_csv, read_tsv


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file.

    Attributes:
        suffixes: Endings that it is recognised by; ``.gz`` or ``.zst`` may follow.
        read: From a file to blocks of about so many bytes; raises `UnreadableError`.
        prose: Whether it is running text, which folders often hold beside their data.
    """

    suffixes: tuple[str, ...]
    read: Callable[[DataFile, int], Iterator[Block]]
    prose: bool = False


KINDS: dict[str, Kind] = {
    "jsonl": Kind(suffixes=(".jsonl", ".ndjson"), read=read_jsonl),
    "json": Kind(suffixes=(".json",), read=read_json),
    "csv": Kind(suffixes=(".csv",), read=read_csv),
    "tsv": Kind(suffixes=(".tsv",), read=read_tsv),
    "parquet": Kind(suffixes=(".parquet",), read=read_parquet),
    "arrow": Kind(suffixes=(".arrow", ".feather"), read=read_arrow),
    "lines": Kind(suffixes=(".txt",), read=read_lines, prose=True),
    "document": Kind(suffixes=(".md",), read=read_document, prose=True),
}
COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES = tuple(suffix for kind in KINDS.values() for suffix in kind.suffixes)


def data_file(path: Path) -> DataFile | None:
    """The file as its name tells what it is, or None if it is of no readable kind."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression is not None:
        suffixes.pop()
    for name, kind in KINDS.items():
        if suffixes and suffixes[-1] in kind.suffixes:
            return DataFile(path=path, name=str(path), kind=name, compression=compression)
    return None
