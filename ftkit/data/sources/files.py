"""What a recipe names as a source, and the files behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of rows, in a recipe's words.

    Attributes:
        path: A file, a folder of files, a folder that `datasets` saved, or a data set's hub id.
        format: Of its rows; ``auto`` for recognised.
        columns: Where a format's keys come from.
        revision: Branch, tag or commit of a hub id.
        subset: Configuration of a hub id.
        split: Of a hub id or a saved data set.
    """

    path: str
    format: str = "auto"
    columns: Mapping[str, str] | None = None
    revision: str | None = None
    subset: str | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a source.

    Attributes:
        path: Where it is.
        name: How messages and reports call it.
        kind: One of `ftkit.data.sources.kinds.KINDS`.
        compression: What it has to be unpacked from first.
        part: Of a hub id or a saved data set, the split that the file belongs to.
        fills_short_rows: Whether cells that a row of CSV lacks at its end are empty. In rows to train on they are a
            fault, as what is missing may stand in the wrong column.
    """

    path: Path
    name: str
    kind: str
    compression: Literal["gzip", "zstd"] | None = None
    part: str | None = None
    fills_short_rows: bool = False
