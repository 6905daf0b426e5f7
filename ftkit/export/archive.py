"""Writing many files as one archive: streamed, whole or absent, and the same bytes for the same files.

The archive is a plain tar (GNU format), so that ``tar -xf`` unpacks it anywhere. Names are sorted, and times, owners
and modes fixed. Its first member, ``BUNDLE.json``, lists every other one with size and SHA-256.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow

from ftkit.errors import OutputError, UsageError
from ftkit.files import CHUNK_BYTES, new_file, require_space, sha256_file, to_json

INDEX = "BUNDLE.json"
MAX_NAME_BYTES = 1024
FORMAT_VERSION = 1
COMPRESSIONS: dict[str, str | None] = {".tar": None, ".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
# A file to be read when its turn comes, or its bytes.
Content = Path | bytes


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What was written.

    Attributes:
        path: Of the archive.
        size: In bytes.
        sha256: Of the archive, as ``sha256sum`` prints it.
        index: The content of its ``BUNDLE.json``.
    """

    path: Path
    size: int
    sha256: str
    index: dict[str, Any]


def is_plain_name(name: str) -> bool:
    """Whether a name is no more than ``folder/file``, in characters that any machine can write."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    strange = any(ord(char) < 32 or char in "\\\x7f" for char in name)
    return size <= MAX_NAME_BYTES and not strange and not {"", ".", ".."} & set(name.split("/"))


class _Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def compression_of(file: Path) -> str | None:
    """How a file is to be compressed, by its name.

    Raises:
        UsageError: It is named as no archive is.
    """
    suffix = next((known for known in sorted(COMPRESSIONS, key=len, reverse=True) if file.name.endswith(known)), None)
    if suffix is None:
        raise UsageError(f"{file}: is not named as an archive", fix=f"Let it end in {', '.join(COMPRESSIONS)}.")
    return COMPRESSIONS[suffix]


def write_archive(content: Mapping[str, Content], about: Mapping[str, Any], file: Path) -> Archive:
    """Write an archive; it appears under its name complete, or not at all.

    Args:
        content: What each member holds, by name.
        about: Further keys of ``BUNDLE.json``.
        file: A new file; its suffix says how it is compressed.

    Raises:
        UsageError: The suffix is none of `COMPRESSIONS`.
        OutputError: The file exists, or a source changed while it was read.
        ResourceError: The disk has no room for it.
    """
    compression = compression_of(file)
    if strange := [name for name in sorted(content) if not is_plain_name(name)]:
        raise OutputError(f"{strange[0]!r}: is no name that every machine can write", fix="Rename the file.")
    files = {name: _facts(content[name]) for name in sorted(content)}
    require_space(file.parent, sum(facts["size"] for facts in files.values()))
    index = {"format_version": FORMAT_VERSION, **about, "files": files}
    with new_file(file) as stream:
        out = _Hashing(stream)
        with _compressed(out, compression) as packed:
            members: dict[str, Content] = {INDEX: to_json(index).encode(), **content}
            written = sum(_write_member(packed, name, members[name], files) for name in sorted(members))
            # Two empty blocks end a tar; it is filled up to whole records.
            packed.write(b"\0" * (2 * tarfile.BLOCKSIZE))
            packed.write(b"\0" * (-(written + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))
    return Archive(path=file, size=out.size, sha256=out.digest.hexdigest(), index=index)


def _facts(content: Content) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"size": content.stat().st_size, "sha256": sha256_file(content)}


def _write_member(out: _Sink, name: str, content: Content, files: Mapping[str, dict[str, Any]]) -> int:
    """Header, content and padding of one member.

    Returns:
        How many bytes that are.
    """
    facts = files.get(name) or _facts(content)
    info = tarfile.TarInfo(name)
    # Fields that are left alone are fixed already: no owner, time 0.
    info.size, info.mode = facts["size"], 0o644
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    out.write(header)
    digest, size = hashlib.sha256(), 0
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    if size != facts["size"] or digest.hexdigest() != facts["sha256"]:
        raise OutputError(f"{content!s}: changed while it was packed", fix="Try again once nothing writes to it.")
    padding = -size % tarfile.BLOCKSIZE
    out.write(b"\0" * padding)
    return len(header) + size + padding


class _Hashing(io.RawIOBase):
    """Passes bytes on and keeps their number and digest."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.size, self.digest = stream, 0, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        """See `io.RawIOBase.write`."""
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        return self.stream.write(view)


@contextlib.contextmanager
def _compressed(out: _Hashing, compression: str | None) -> Iterator[_Sink]:
    if compression is None:
        yield out
    elif compression == "gzip":
        # Neither name nor time in its header, or two archives of one content would differ.
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
            yield packed
    else:
        with pyarrow.CompressedOutputStream(out, compression) as packed:
            yield packed
