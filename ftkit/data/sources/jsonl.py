"""JSON Lines: one object a line. The lines pass through as they are; who takes them parses them."""

from __future__ import annotations

from collections.abc import Iterator

from ftkit.data.sources.blocks import Block
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.streams import open_bytes, whole_lines


def read_jsonl(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of a file's own lines, without the blank ones.

    Raises:
        UnreadableError: The file cannot be read on.
    """
    line = 1
    with open_bytes(file) as stream:
        for piece in whole_lines(stream, block_bytes, file.name):
            lines = piece.split(b"\n")
            if not lines[-1]:
                lines.pop()
            else:
                piece += b"\n"  # the last line of a file that does not end with a line feed
            numbers = [number for number, raw in enumerate(lines, line) if raw.strip()]
            if len(numbers) < len(lines):
                piece = b"".join(raw + b"\n" for raw in lines if raw.strip())
            line += len(lines)
            if numbers:
                yield Block(lines=piece, numbers=numbers, style="line")
