"""The bytes of a data file, unpacked where it is an archive, with every failure naming the file."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import pyarrow

from ftkit.data.sources.blocks import MAX_ROW_BYTES, UnreadableError
from ftkit.data.sources.files import DataFile
from ftkit.errors import Problem

CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def naming_failures(file: DataFile) -> Iterator[None]:
    """Turn a failure of the system or of the archive inside the block into one that names the file.

    Raises:
        UnreadableError: There was one.
    """
    try:
        yield
    except OSError as error:
        if file.compression is not None and error.errno is None:
            what = f"not a readable {file.compression} archive: {error}"
            problem = Problem(where=file.name, what=what, fix="It is damaged or cut off; get it again.")
        else:
            problem = Problem(where=file.name, what=f"cannot be read: {error.strerror or error}")
        raise UnreadableError(problem) from None


@contextlib.contextmanager
def open_bytes(file: DataFile) -> Iterator[Any]:
    """The file's content from its beginning, as an object with ``read(size)``.

    Raises:
        UnreadableError: It cannot be opened, or while it is read: it is damaged.
    """
    with naming_failures(file):
        if file.compression is None:
            with file.path.open("rb") as stream:
                yield stream
        else:
            with (
                pyarrow.OSFile(str(file.path)) as packed,
                pyarrow.CompressedInputStream(packed, file.compression) as stream,
            ):
                yield stream


@contextlib.contextmanager
def open_seekable(file: DataFile) -> Iterator[Any]:
    """The file's content for readers that jump about in it; an archive is unpacked to a temporary file first.

    Raises:
        UnreadableError: As `open_bytes`.
    """
    if file.compression is None:
        with naming_failures(file):
            mapped = pyarrow.memory_map(str(file.path))
        with mapped:  # what fails from here on is the content, which its reader can name better
            yield mapped
        return
    with tempfile.TemporaryFile(prefix="ftkit-") as unpacked:
        with open_bytes(file) as stream:
            shutil.copyfileobj(stream, unpacked, CHUNK_BYTES)
        unpacked.seek(0)
        with pyarrow.PythonFile(unpacked, mode="r") as wrapped:
            yield wrapped


def whole_lines(stream: IO[bytes], block_bytes: int, name: str) -> Iterator[bytes]:
    """The content in pieces of about ``block_bytes`` that end where a line does; a BOM at its beginning is removed.

    Raises:
        UnreadableError: A line does not fit into memory with decency.
    """
    pending: list[bytes] = []
    waiting = 0
    first = True
    while data := stream.read(block_bytes):
        cut = data.rfind(b"\n") + 1
        if cut == 0:
            pending.append(data)
            waiting += len(data)
            if waiting > MAX_ROW_BYTES:
                what = f"has a line of more than {MAX_ROW_BYTES >> 20} MiB"
                raise UnreadableError(Problem(where=name, what=what, fix="A row must fit into memory many times."))
            continue
        piece = b"".join([*pending, data[:cut]])
        yield piece.removeprefix(b"\xef\xbb\xbf") if first else piece
        pending, first = [data[cut:]], False
        waiting = len(pending[0])
    if piece := b"".join(pending):
        yield piece.removeprefix(b"\xef\xbb\xbf") if first else piece
