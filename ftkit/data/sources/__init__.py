"""Rows out of files, folders, saved data sets and the hub, in blocks, each row with the place it came from."""

from __future__ import annotations

from collections.abc import Iterator

from ftkit.data.sources.blocks import Block, UnreadableError, parse_line, place
from ftkit.data.sources.files import DataFile, Source
from ftkit.data.sources.find import open_files
from ftkit.data.sources.kinds import KINDS

__all__ = ["Block", "DataFile", "Source", "open_files", "parse_line", "place", "read_blocks"]


def read_blocks(file: DataFile, *, block_bytes: int = 1 << 20) -> Iterator[Block]:
    """The rows of one file in order, about ``block_bytes`` at a time, and a `Problem` for each that cannot be read.

    Lines of JSON Lines are passed on as they stand and may still turn out to be none (`parse_line`); rows of every
    other kind are parsed here. A file that cannot be read to its end gives what comes before, then its problem.
    """
    try:
        yield from KINDS[file.kind].read(file, block_bytes)
    except UnreadableError as error:
        yield Block(lines=b"", numbers=[], style="line", problems=[error.problem])
