"""A data set of the Hugging Face hub, through the library `datasets`, as the Arrow files of its cache."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftkit.cache import is_hub_offline
from ftkit.data.sources.files import DataFile, Source
from ftkit.data.sources.saved import choose_split
from ftkit.errors import DataError, MissingPartError
from ftkit.notices import log
from ftkit.units import format_bytes

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FIX = (
    "Check the spelling, HF_HUB_OFFLINE (1: only what is cached), FTKIT_OFFLINE, HF_ENDPOINT (a mirror), HF_TOKEN;\n"
    "or give a file or a folder instead."
)


def hub_files(source: Source) -> list[DataFile]:
    """Fetch a split of a hub's data set, if it is allowed and needed, and give its files.

    Raises:
        DataError: The hub has no such data set, subset or split, or it can neither be fetched nor found in the cache.
        MissingPartError: The library `datasets` is not installed.
    """
    if source.split is not None and not re.fullmatch(r"\w+(\.\w+)*", source.split):
        raise DataError(
            f"{source.path}: {source.split!r} is not the name of a split", fix="For a part of one, set max_rows."
        )
    try:
        import datasets
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise MissingPartError(
            f"{source.path}: no such file or folder, and a data set of the hub needs the package datasets",
            fix="Run: pip install 'ftkit[hub]' (or 'ftkit[all]')",
        ) from None
    faults = (
        OSError, ValueError, RuntimeError, NotImplementedError, datasets.exceptions.DatasetsError,
        huggingface_hub.errors.HTTPError,  # a connection that fails is no OSError to its library
    )  # fmt: skip
    try:
        with _as_open_as_allowed(datasets.config, huggingface_hub.constants):
            _announce(source, huggingface_hub)
            splits = datasets.load_dataset(source.path, source.subset, revision=source.revision)
    except faults as error:
        closed = " (closed by HF_HUB_OFFLINE or FTKIT_OFFLINE)" if is_hub_offline() else ""
        raise DataError(
            f"{source.path}: no such file or folder, and not to be had from the hub{closed}: "
            f"{_in_words(error, huggingface_hub.errors)}",
            fix=_FIX,
        ) from None
    split = choose_split(list(splits), source.split, source.path)
    return _cache_files(source, split, splits[split])


def _in_words(error: Exception, errors: Any) -> str:
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it has no such data set, or you may not see it"
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _cache_files(source: Source, split: str, rows: Any) -> list[DataFile]:
    paths = [Path(entry["filename"]) for entry in rows.cache_files]
    if not paths:
        raise DataError(
            f"{source.path}: datasets keeps it in memory only", fix="Save it with save_to_disk, name that."
        )
    revision = source.revision
    # Where the hub is out of reach, datasets takes the newest cached version, whichever was asked for.
    if revision is not None and _COMMIT.fullmatch(revision) and not any(revision in path.parts for path in paths):
        raise DataError(
            f"{source.path}: revision {revision} is not in the cache, and the hub is closed or out of reach", fix=_FIX
        )
    return [DataFile(path=path, name=f"{source.path}/{path.name}", kind="arrow", part=split) for path in paths]


def _announce(source: Source, hub: Any) -> None:
    """Say what is about to be fetched; of a closed hub, nothing is."""
    if is_hub_offline():
        return
    info = hub.HfApi().dataset_info(source.path, revision=source.revision, files_metadata=True)
    size = sum(file.size or 0 for file in info.siblings or [])
    log.info(
        "fetching the data set %s from the hub (at most %s; what is cached is kept)", source.path, format_bytes(size)
    )


@contextlib.contextmanager
def _as_open_as_allowed(*libraries: Any) -> Iterator[None]:
    """Close the hub for both libraries where FTKIT_OFFLINE does: they read a variable of their own, on import."""
    before = [library.HF_HUB_OFFLINE for library in libraries]
    try:
        for library in libraries:
            library.HF_HUB_OFFLINE = library.HF_HUB_OFFLINE or is_hub_offline()
        yield
    finally:
        for library, value in zip(libraries, before, strict=True):
            library.HF_HUB_OFFLINE = value
