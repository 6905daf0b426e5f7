"""CSV and TSV with a header, streamed; a row's place is the line that it begins on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ftkit.data.sources.blocks import MAX_ROW_BYTES, Block, Row, UnreadableError, blocks_of, not_utf8, place
from ftkit.data.sources.files import DataFile
from ftkit.data.sources.streams import CHUNK_BYTES, open_bytes, whole_lines
from ftkit.errors import Problem


def read_csv(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of the rows between commas."""
    return blocks_of(_rows(file, ","), file.name, "line", block_bytes)


def read_tsv(file: DataFile, block_bytes: int) -> Iterator[Block]:
    """Blocks of the rows between tabs; quotation marks work as in CSV."""
    return blocks_of(_rows(file, "\t"), file.name, "line", block_bytes)


def _rows(file: DataFile, delimiter: str) -> Iterator[tuple[int, Row | Problem]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(_texts(file), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = place(file.name, "line", reader.line_num)
            raise UnreadableError(Problem(where=where, what=f"not valid CSV: {error}")) from None
        number, line = line, reader.line_num + 1
        if header is None:
            header = cells
            _require_distinct(header, place(file.name, "line", number))
        elif cells and file.fills_short_rows and len(cells) < len(header):
            yield number, dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True))
        elif cells and len(cells) != len(header):
            what = f"{len(cells)} cells in a row, {len(header)} in the header"
            fix = 'Put cells that hold the separator in "quotes".'
            yield number, Problem(where=place(file.name, "line", number), what=what, fix=fix)
        elif cells:
            yield number, dict(zip(header, cells, strict=True))


def _require_distinct(header: list[str], where: str) -> None:
    twice = next((name for index, name in enumerate(header) if name and name in header[:index]), None)
    if twice is not None:
        what = f"the header names {twice!r} twice"
        raise UnreadableError(Problem(where=where, what=what, fix="Rename or remove one of the two columns."))


def _texts(file: DataFile) -> Iterator[str]:
    """The file's lines with their ends, as the csv module wants them."""
    line = 1
    with open_bytes(file) as stream:
        for piece in whole_lines(stream, CHUNK_BYTES, file.name):
            try:
                text = piece.decode()
            except UnicodeDecodeError as error:
                # Rows before the fault in this piece are still read, as those of earlier pieces were.
                yield from io.StringIO(piece[: error.start].rpartition(b"\n")[0].decode(), newline="")
                at = line + piece[: error.start].count(b"\n")
                problem = not_utf8(place(file.name, "line", at), piece[error.start])
                raise UnreadableError(problem) from None
            line += piece.count(b"\n")
            # Not str.splitlines: it also splits at form feeds and Unicode line separators, which any cell may hold.
            yield from io.StringIO(text, newline="")
