"""Files that are either whole or absent: atomic writes, digests, locks, and paths that stay inside a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ftkit.errors import OutputError, ResourceError
from ftkit.units import format_bytes

CHUNK_BYTES = 1 << 20
MAX_NAME_BYTES = 255
PARTIAL_PREFIX = ".partial-"
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
# safetensors and tokenizers write in Rust, and what they raise has the system's number in its text alone.
_NUMBER = re.compile(r"\(os error (\d+)\)")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces, UTF-8)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_json(value: Any) -> str:
    """JSON text as ftkit writes it: readable, stable, and never ``NaN`` (which is not JSON)."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part.

    Written beside the target, flushed to the disk, then renamed over it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL_PREFIX)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).chmod(0o666 & ~_umask())
        Path(partial).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(partial).unlink()
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, to_json(value))


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a stream to fill; the file appears under ``path`` complete, or not at all.

    Raises:
        OutputError: Something stands there already.
    """
    if path.exists():
        raise OutputError(
            f"{path}: exists already", fix="Choose another output, or delete it. ftkit never overwrites one."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL_PREFIX)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        _settle(Path(partial))
        Path(partial).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(partial).unlink()
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill; it appears under ``path`` complete, or not at all.

    Args:
        path: Where the folder will stand. Must not exist, or be an empty folder.

    Yields:
        A folder beside ``path`` to write into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=PARTIAL_PREFIX))
    try:
        yield partial
        for root, _, names in os.walk(partial):
            for name in names:
                _settle(Path(root) / name)
            sync_folder(Path(root))
        partial.chmod(0o777 & ~_umask())
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settle(path: Path) -> None:
    """Flush one file and give it the person's usual permissions.

    safetensors creates its files with mode 0600 whatever the umask, and a model that other users of the
    machine cannot read is no use to a server that runs under another account.
    """
    path.chmod(0o666 & ~_umask())
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    # There is no call that only reads it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def inside(folder: Path, name: str) -> Path:
    """Resolve a name from a manifest or archive, refusing to leave ``folder``.

    Raises:
        ValueError: The name is absolute, climbs out with ``..``, follows a link out, or is too long for one.
    """
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in Path(name).parts):
        raise ValueError(f"{name[:40]!r}... is too long for a name")
    root = folder.resolve()
    target = (root / name).resolve()
    if target == root or not target.is_relative_to(root):
        raise ValueError(f"{name!r} points outside its folder")
    return target


def files_in(folder: Path) -> list[str]:
    """All files below a folder as sorted POSIX paths relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def require_empty(folder: Path) -> None:
    """Refuse an output folder that already holds something.

    Raises:
        OutputError: It exists and is a file or is not empty.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder", fix="Choose another output.")
    if any(folder.iterdir()):
        raise OutputError(
            f"{folder}: exists and is not empty",
            fix="Choose another output, or delete the folder. ftkit never overwrites one.",
        )


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        ResourceError: The file system of ``folder`` (or of its nearest existing parent) has less room.
    """
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise ResourceError(
            f"{folder}: needs about {format_bytes(needed_bytes)} of disk, {format_bytes(free_bytes)} are free",
            fix="Free some space, choose another output, or ask for fewer exports or checkpoints.",
        )


def error_number(error: BaseException) -> int | None:
    """The operating system's number of an error, such as ``errno.ENOSPC``; None where it is no such error."""
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half-written, anywhere below a folder that this process holds."""
    for root, folders, names in os.walk(folder):
        for name in [name for name in folders if name.startswith(PARTIAL_PREFIX)]:
            folders.remove(name)
            shutil.rmtree(Path(root) / name, ignore_errors=True)
        for name in [name for name in names if name.startswith(PARTIAL_PREFIX)]:
            (Path(root) / name).unlink(missing_ok=True)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the operating system lets go when the process dies.

    Raises:
        OutputError: Another process holds it, or nothing can be written there.
    """
    try:
        stream = _opened_lock(folder)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        raise OutputError(
            f"{folder}: cannot be written to: {error.strerror}", fix="Make it writable, or choose another output."
        ) from None
    with stream:
        yield


def _opened_lock(folder: Path) -> TextIO:
    """The folder's lock file, locked."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with contextlib.ExitStack() as stack:
            path = folder / ".lock"
            try:
                stream = stack.enter_context(path.open("a"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who held it before may have removed it, with the folder: then this lock is of no file.
                held = path.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                held = False
            except BlockingIOError:
                raise OutputError(
                    f"{folder}: another process is working in this folder",
                    fix="Wait for it to end, or choose another output.",
                ) from None
            if held:
                stack.pop_all()
                return stream


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a file for this process, after whoever holds it now; the system lets go when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
