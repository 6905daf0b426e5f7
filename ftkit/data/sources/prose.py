"""Text files: a row a line, or the whole file as one row; both as ``{"text": ...}``."""

from __future__ import annotations

from collections.abc import Iterator

from ftkit.data.sources.blocks import MAX_ROW_BYTES, Block, Row, UnreadableError, blocks_of, not_utf8, place
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.streams import open_bytes, whole_lines
from ftkit.errors import Problem


def read_lines(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of a text file's lines, without the blank ones."""
    return blocks_of(_lines(file, block_bytes), file.name, "line", block_bytes)


def _lines(file: DataFile, block_bytes: int) -> Iterator[tuple[int, Row | Problem]]:
    number = 0
    with open_bytes(file) as stream:
        for piece in whole_lines(stream, block_bytes, file.name):
            for raw in piece.removesuffix(b"\n").split(b"\n"):
                number += 1
                if raw.strip():
                    yield number, _text(raw.removesuffix(b"\r"), place(file.name, "line", number))


def read_document(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """One row with the whole text."""
    return blocks_of(_document(file), file.name, "line", block_bytes)


def _document(file: DataFile) -> Iterator[tuple[int, Row | Problem]]:
    with open_bytes(file) as stream:
        raw: bytes = stream.read(MAX_ROW_BYTES + 1)
    if len(raw) > MAX_ROW_BYTES:
        what = f"is a text of more than {MAX_ROW_BYTES >> 20} MiB, too much for one row"
        raise UnreadableError(Problem(where=file.name, what=what, fix="Split it, or name it by itself as a .txt."))
    yield 1, _text(raw.removeprefix(b"\xef\xbb\xbf"), place(file.name, "line", 1))


def _text(raw: bytes, where: str) -> Row | Problem:
    try:
        return {"text": raw.decode()}
    except UnicodeDecodeError as error:
        return not_utf8(where, raw[error.start])
