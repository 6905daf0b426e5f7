"""A folder that `datasets` saved with ``save_to_disk``: its Arrow files, read without that library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.data.sources.files import DataFile
from ftkit.errors import DataError
from ftkit.files import inside
from ftkit.nearest import did_you_mean

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether the folder is one of these: a data set, or a dictionary of splits."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file()


def saved_files(folder: Path, split: str | None) -> list[DataFile]:
    """The Arrow files of one split: the named one, else ``train``, else the only one.

    Raises:
        DataError: There is no such split, several and none is named, or the folder is damaged.
    """
    if not (folder / _SPLITS).is_file():
        own = _read(folder / _STATE).get("_split")
        if split is not None and split != own:
            raise DataError(
                f"{folder}: is one saved split ({own or 'without a name'}), not {split!r}", fix="Leave split away."
            )
        return _arrow_files(folder, own)
    chosen = choose_split(_read(folder / _SPLITS).get("splits"), split, str(folder))
    return _arrow_files(_inner(folder, chosen), chosen)


def choose_split(splits: Any, split: str | None, name: str) -> str:
    """The named split, else ``train``, else the only one.

    Raises:
        DataError: There is no such split, or several and none is named.
    """
    known = [str(one) for one in splits] if isinstance(splits, (list, tuple)) else []
    if split is not None:
        if split not in known:
            raise DataError(f"{name}: has no split {split!r}", fix=did_you_mean(split, known, what="Its splits"))
        return split
    if "train" in known:
        return "train"
    if len(known) != 1:
        raise DataError(
            f"{name}: has no split called train, and none was named",
            fix=f"Name one of its splits: {{path: {name}, split: ...}}. It has: {', '.join(known) or 'none'}.",
        )
    return known[0]


def _arrow_files(folder: Path, split: str | None) -> list[DataFile]:
    state = _read(folder / _STATE)
    if state.get("_indices_files"):
        raise DataError(
            f"{folder}: was saved as a selection by an old version of datasets",
            fix="Load it with that library, call flatten_indices(), and save it again.",
        )
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "filename" in one for one in listed):
        raise DataError(f"{folder / _STATE}: does not list data files", fix="Save the data set again.")
    files = [_inner(folder, str(one["filename"])) for one in listed]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: is missing, and {_STATE} lists it", fix="Copy the whole folder again.")
    return [DataFile(path=file, name=str(file), kind="arrow", part=split) for file in files]


def _inner(folder: Path, name: str) -> Path:
    try:
        inside(folder, name)
    except ValueError as error:
        raise DataError(f"{folder}: {error}", fix="Save the data set again.") from None
    return folder / name


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Save the data set again.") from None
    return value if isinstance(value, dict) else {}
