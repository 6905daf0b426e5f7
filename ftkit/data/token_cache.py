"""Token stores that are made once: a cache keyed by all that decides what they hold.

The key is a digest of the file's bytes, of the settings that read and tokenise it (format, columns, grouping, the
tokenizer, its template, what is trained on), and of the versions of the code that does it. Nothing else is looked at,
neither names nor times, so an entry cannot be stale; and each is checked byte by byte before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from ftkit.cache import cache_folder
from ftkit.data.block import BlockSettings
from ftkit.data.store import DamagedStoreError, StoreWriter, TokenStore
from ftkit.errors import ResourceError, UsageError
from ftkit.files import FULL, PARTIAL_PREFIX, READ_ONLY, new_folder, sha256_json
from ftkit.units import format_bytes

log = logging.getLogger(__name__)

# Raise it with every change of what the same file and settings become.
TOKENS_VERSION = 2
DEFAULT_LIMIT_BYTES = 20 << 30
_ABANDONED_S = 24 * 3600

Build = Callable[[StoreWriter], dict[str, object]]


class NotWorthKeepingError(Exception):
    """A build that found faults: there is nothing to keep."""


def token_key(files: Sequence[tuple[str, str]], settings: BlockSettings) -> str:
    """What a store is filed under.

    Args:
        files: Of each file, the SHA-256 of its bytes, and how they are read: kind, compression, part.
        settings: Of reading and tokenising.
    """
    facts = vars(settings) | {"encoder": settings.encoder.digest}
    libraries = {name: version(name) for name in ("tokenizers", "jinja2", "pyarrow")}
    return sha256_json([TOKENS_VERSION, list(files), facts, libraries])


def tokens_folder() -> Path:
    """Where token stores are kept: ``$FTKIT_TOKEN_CACHE``, say on a large disk, else in ftkit's cache folder."""
    chosen = os.environ.get("FTKIT_TOKEN_CACHE")
    return Path(chosen).expanduser() if chosen else cache_folder() / "tokens"


def cached(key: str, build: Build) -> TokenStore:
    """The store of this key, made if it is missing or damaged.

    Two processes that want the same store do not both make it: the second waits. Where the cache cannot be written
    to, or its disk is full, the store lives in a temporary folder until this process ends.

    Args:
        key: From `token_key`.
        build: Fills a writer and gives the facts to keep with it.

    Raises:
        ResourceError: The disk is full, or too many files are open.
        UsageError: ``FTKIT_TOKEN_CACHE_GIB`` is no number.
        NotWorthKeepingError: From ``build``; nothing is kept.
    """
    folder = tokens_folder() / key[:32]
    limit = _limit_bytes()
    try:
        with _saying_open_files(), _turn(folder):
            store = _open(folder)
            if store is None:
                with new_folder(folder) as partial:
                    _fill(partial, build)
                store = TokenStore(folder)
                _make_room(limit, keep=folder)
            else:
                os.utime(folder)  # read lately, for _make_room
            return store
    except OSError as error:
        if error.errno not in READ_ONLY + FULL:
            raise
        reason = "is on a full disk" if error.errno in FULL else "cannot be written to"
    log.warning("%s %s, so tokens are not kept", tokens_folder(), reason)
    return temporary(build)


@contextlib.contextmanager
def _saying_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"{tokens_folder()} and {tempfile.gettempdir()}"
        raise ResourceError(
            f"{where}: the disk is full while tokens are written",
            fix="Free some space, or name a folder on another disk in FTKIT_TOKEN_CACHE.",
        ) from None


@contextlib.contextmanager
def _saying_open_files() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError(
                "the system lets this process open no more files",
                fix="Allow more (ulimit -n 65536), or put the data into fewer files.",
            ) from None
        raise


def _open(folder: Path) -> TokenStore | None:
    if not folder.is_dir():
        return None
    try:
        return TokenStore(folder)
    except DamagedStoreError as error:
        log.warning("the token cache is damaged and is made again: %s", error)
        shutil.rmtree(folder)
        return None


def _fill(folder: Path, build: Build) -> None:
    with StoreWriter(folder) as writer:
        writer.finish(build(writer))


def temporary(build: Build) -> TokenStore:
    """A store that vanishes with this process.

    Raises:
        ResourceError: The disk is full.
    """
    with _saying_full(), _saying_open_files(), tempfile.TemporaryDirectory(prefix="ftkit-tokens-") as name:
        _fill(Path(name), build)
        # The store keeps its files open, so they outlive their names and vanish with this process.
        return TokenStore(Path(name))


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait until no other process works on this entry; the operating system lets go when one dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process is preparing the same data; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _limit_bytes() -> int:
    """``FTKIT_TOKEN_CACHE_GIB``, as bytes."""
    chosen = os.environ.get("FTKIT_TOKEN_CACHE_GIB", "")
    try:
        return int(float(chosen) * (1 << 30)) if chosen else DEFAULT_LIMIT_BYTES
    except (ValueError, OverflowError):
        raise UsageError(
            f"FTKIT_TOKEN_CACHE_GIB: {chosen!r} is not a number of GiB", fix="Write 20 or 0.5."
        ) from None


def _make_room(limit: int, keep: Path) -> None:
    """Remove the entries not used for longest until the cache is within its limit; and wrecks.

    An entry in use by another process may go: its files stay readable until that process closes them.
    """
    entries = sorted((entry for entry in keep.parent.iterdir() if entry.is_dir()), key=lambda entry: -_used(entry))
    total = 0
    for entry in entries:
        if entry.name.startswith(PARTIAL_PREFIX):
            goes = time.time() - _written(entry) > _ABANDONED_S
        else:
            total += _size(entry)
            goes = total > limit and entry != keep
        if not goes:
            continue
        log.info("token cache: %s removed (the limit is %s)", entry.name, format_bytes(limit))
        shutil.rmtree(entry, ignore_errors=True)


def _used(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0


def _written(folder: Path) -> float:
    """When a file of it last grew: a folder's own time stands still while its files are written."""
    with contextlib.suppress(FileNotFoundError):
        return max((file.stat().st_mtime for file in folder.iterdir()), default=_used(folder))
    return 0.0


def _size(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0
