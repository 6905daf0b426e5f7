"""Reading an archive that somebody else may have made: nothing leaves its folder, and nothing exceeds what it says.

Headers are read here one by one instead of by `tarfile.open`, which reads extended headers into memory whatever their
size, before anybody could object.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow

from ftkit.errors import UsageError, VerificationError
from ftkit.export.archive import FORMAT_VERSION, INDEX, MAX_NAME_BYTES, is_plain_name
from ftkit.files import CHUNK_BYTES, require_space
from ftkit.units import format_bytes

MAX_INDEX_BYTES = 16 << 20
# Weights hardly compress (by a third at best), text by a factor of ten; an archive of more than this is a bomb.
MAX_RATIO = 100
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def unpack(file: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive, trusting nothing of it.

    Args:
        file: As `ftkit.export.archive.write_archive` wrote it; by its content, whatever its name.
        folder: An empty folder.

    Returns:
        The content of its ``BUNDLE.json``; every file that it lists is there, with that size and SHA-256.

    Raises:
        UsageError: There is no such file.
        VerificationError: It is no such archive, is damaged, or would write what it should not.
        ResourceError: The disk has no room for it.
    """
    if not file.is_file():
        raise UsageError(f"{file}: no such file", fix="Name a bundle that `ftkit export --bundle` wrote.")
    try:
        with _opened(file) as (stream, is_compressed):
            reader = _Reader(stream)
            index = read_index(reader)
            total = sum(facts["size"] for facts in index["files"].values())
            allowed = file.stat().st_size * (MAX_RATIO if is_compressed else 1)
            if total > allowed:
                raise _RefusedError(
                    f"says that it unpacks to {format_bytes(total)}; of a file of its size "
                    f"{format_bytes(allowed)} are believed"
                )
            require_space(folder, total)
            _unpack_members(reader, index["files"], folder)
            (folder / INDEX).write_bytes(reader.index_bytes)
    except _RefusedError as error:
        raise VerificationError(
            f"{file}: {error}", fix="Do not use it; fetch the bundle again from where it was made."
        ) from None
    return index


class _RefusedError(ValueError):
    """Something about the archive is not as it must be."""


class _Reader:
    """The members of a tar, one header at a time."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.index_bytes = b""

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = self._read_up_to(size)
        if len(data) != size:
            raise _RefusedError("is cut off")
        return data

    def _read_up_to(self, size: int) -> bytes:
        try:
            return bytes(self.stream.read(size))
        except (OSError, EOFError, zlib.error) as error:
            raise _RefusedError(f"is damaged: {error}") from None

    def skip_padding(self, size: int) -> None:
        """What fills the last block of a member of this size."""
        self.read(-size % tarfile.BLOCKSIZE)

    def member(self) -> tuple[str, int] | None:
        """Name and size of the next file; None at the end.

        Raises:
            _RefusedError: It is something else than a plain file.
        """
        header = self._header()
        if header is None:
            return None
        long_name = None
        if header.type == tarfile.GNUTYPE_LONGNAME:
            if not 0 < header.size <= MAX_NAME_BYTES:
                raise _RefusedError(f"has a name of {header.size} bytes")
            long_name = self.read(header.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            self.skip_padding(header.size)
            header = self._header()
        if header is None or header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            what = "nothing" if header is None else repr(header.name)
            raise _RefusedError(f"{what} is not a plain file (a link, folder, device or unknown kind of member)")
        if header.size < 0:
            raise _RefusedError(f"{header.name!r} has a size below zero")
        return long_name or header.name, header.size

    def _header(self) -> tarfile.TarInfo | None:
        block = self.read(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            self._require_end()
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise _RefusedError(f"is not a tar archive, or damaged: {error}") from None

    def _require_end(self) -> None:
        rest = self._read_up_to(tarfile.RECORDSIZE + 1)
        if len(rest) > tarfile.RECORDSIZE or rest.strip(b"\0") or len(rest) < tarfile.BLOCKSIZE:
            raise _RefusedError("goes on after its end, or is cut off")


def read_index(reader: _Reader) -> dict[str, Any]:
    """The first member, checked before anything is believed of the rest."""
    first = reader.member()
    if first is None or first[0] != INDEX or first[1] > MAX_INDEX_BYTES:
        raise _RefusedError(f"does not begin with {INDEX}, so it is not a bundle that ftkit wrote")
    reader.index_bytes = reader.read(first[1])
    reader.skip_padding(first[1])
    return parse_index(reader.index_bytes)


def parse_index(text: bytes) -> dict[str, Any]:
    """The content of a BUNDLE.json.

    Raises:
        ValueError: It is not one, or lists names that do not stay below its folder.
    """
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"{INDEX} cannot be read: {error}") from None
    if not isinstance(index, dict) or index.get("format_version") != FORMAT_VERSION:
        raise _RefusedError(f"{INDEX} is of another format than {FORMAT_VERSION}; use a matching ftkit")
    files = index.get("files")
    if not isinstance(files, dict) or not files or not all(_is_facts(facts) for facts in files.values()):
        raise _RefusedError(f"{INDEX} does not list its files with size and sha256")
    for name in files:
        _require_plain_name(name)
        parents = {parent.as_posix() for parent in PurePosixPath(name).parents}
        if name == INDEX or parents & set(files):
            raise _RefusedError(f"{name!r} is the name of a file and of a folder, or of {INDEX} itself")
    return index


def _unpack_members(reader: _Reader, files: dict[str, dict[str, Any]], folder: Path) -> None:
    seen: set[str] = set()
    while (member := reader.member()) is not None:
        name, size = member
        _require_plain_name(name)
        if name not in files:
            raise _RefusedError(f"{name!r} is not listed in {INDEX}")
        if name in seen:
            raise _RefusedError(f"{name!r} comes twice")
        if size != files[name]["size"]:
            raise _RefusedError(f"{name!r} has {size} bytes, {INDEX} says {files[name]['size']}")
        seen.add(name)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _copy(reader, size, target) != files[name]["sha256"]:
            raise _RefusedError(f"{name!r} has other bytes than were packed")
    if missing := sorted(set(files) - seen):
        raise _RefusedError(f"{missing[0]!r} is missing")


def _copy(reader: _Reader, size: int, target: Path) -> str:
    """Write one file.

    Returns:
        Its SHA-256.
    """
    digest, left = hashlib.sha256(), size
    with target.open("xb") as out:
        while left:
            chunk = reader.read(min(CHUNK_BYTES, left))
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    reader.skip_padding(size)
    return digest.hexdigest()


def _require_plain_name(name: str) -> None:
    if not is_plain_name(name):
        raise _RefusedError(f"{name!r} is not a name that stays below the folder")


def _is_facts(facts: Any) -> bool:
    if not isinstance(facts, dict):
        return False
    size, sha256 = facts.get("size"), facts.get("sha256")
    return (
        type(size) is int and size >= 0 and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    )  # fmt: skip


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, bool]]:
    """The archive's content, and whether it is compressed."""
    with file.open("rb") as stream:
        beginning = stream.read(4)
        compression = next((kind for magic, kind in _MAGIC.items() if beginning.startswith(magic)), None)
        stream.seek(0)
        if compression is None:
            yield stream, False
        elif compression == "gzip":
            with gzip.GzipFile(fileobj=stream) as unpacked:
                yield unpacked, True
        else:
            with pyarrow.CompressedInputStream(stream, compression) as unpacked:
                yield unpacked, True
