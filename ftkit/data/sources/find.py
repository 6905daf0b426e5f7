"""From what a recipe names as a source to the files behind it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ftkit.data.sources.files import DataFile, Source
from ftkit.data.sources.hub import hub_files
from ftkit.data.sources.kinds import KINDS, SUFFIXES, data_file
from ftkit.data.sources.saved import is_saved, saved_files
from ftkit.errors import DataError
from ftkit.nearest import nearest
from ftkit.notices import log

_READABLE = f"Readable kinds: {', '.join(SUFFIXES)}, each also with .gz or .zst; a folder that datasets saved."
_COMPANIONS = re.compile(r"(readme|source)([^a-z].*)?|(.*[^a-z])?licen[cs]e([^a-z].*)?", re.IGNORECASE)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def open_files(source: Source) -> list[DataFile]:
    """The files behind one source, in the order in which their rows are taken.

    A path on this machine comes first: a file of a readable kind, a folder that `datasets` saved, or all data files
    below a folder in the order of their names, hidden ones left out. A folder of nothing but ``.txt`` and ``.md``
    gives one row a file, and so does an ``.md`` named by itself; a ``.txt`` named by itself gives one row a line.
    Texts called README, LICENSE or SOURCE are about the data and none of it; other texts beside files of other kinds
    are refused, for they could be either. What a folder holds besides is not read, and that is said. What is on no
    path of this machine and looks like ``owner/name``, or has a revision, subset or split, is a data set of the hub.

    Raises:
        DataError: There is nothing to read.
        MissingPartError: A data set of the hub needs a package that is not installed.
    """
    path = Path(source.path).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # too long for a name, or a zero byte in it
        is_folder = is_file = False
    if is_folder and is_saved(path):
        _require_local(source, allowed=("split",))
        return saved_files(path, source.split)
    if is_folder:
        _require_local(source)
        return _folder_files(path)
    if is_file:
        _require_local(source)
        file = data_file(path)
        if file is None:
            raise DataError(f"{path}: unknown kind of file", fix=_READABLE)
        return [file]
    if _is_hub_id(source, path):
        return hub_files(source)
    raise DataError(f"{source.path}: no such file or folder, and no hub id of a data set", fix=_missing_fix(path))


def _require_local(source: Source, allowed: tuple[str, ...] = ()) -> None:
    """Refuse settings that only a data set of the hub has, where they would be ignored."""
    for key in ("revision", "subset", "split"):
        if getattr(source, key) is not None and key not in allowed:
            raise DataError(
                f"{source.path}: is on this machine, and {key} is for data sets of the hub", fix=f"Remove {key}."
            )


def _folder_files(folder: Path) -> list[DataFile]:
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()
    ]
    about = [path for path in paths if _COMPANIONS.fullmatch(path.name)]
    files = [file for path in paths if path not in about and (file := data_file(path)) is not None]
    read = {file.path for file in files} | set(about)
    unread = [path for path in paths if path not in read]
    texts = [file for file in files if KINDS[file.kind].prose]
    others = [file for file in files if not KINDS[file.kind].prose]
    if not files:
        besides = f" (but {len(unread):,} others, such as {unread[0].name})" if unread else ""
        raise DataError(f"{folder}: holds no data files{besides}", fix=_READABLE)
    if texts and others:
        raise DataError(
            f"{folder}: holds rows ({_example(others[0], folder)}) and texts ({_example(texts[0], folder)})",
            fix="Name the files to train on, or a folder with one of the two.",
        )
    if about:
        log.info("%s: left out as being about the data: %s", folder, ", ".join(path.name for path in about[:5]))
    if unread:
        log.warning("%s: %d files are of no kind that is read, such as %s", folder, len(unread), unread[0].name)
    return others or [replace(file, kind="document") for file in texts]


def _example(file: DataFile, folder: Path) -> str:
    return file.path.relative_to(folder).as_posix()


def _is_hub_id(source: Source, path: Path) -> bool:
    if source.revision is not None or source.subset is not None or source.split is not None:
        return True
    # data/train.jsonl looks like owner/name too, and so does a misspelt folder beside existing ones.
    looks_local = data_file(path) is not None or path.suffix.lower() in (".txt", ".md") or path.parent.is_dir()
    return not looks_local and _HUB_ID.fullmatch(source.path) is not None


def _missing_fix(path: Path) -> str:
    """The nearest name in the folder that is meant, and how each reading of the path is written."""
    lines = []
    try:
        meant = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except (OSError, ValueError):
        meant = None
    if meant is not None:
        lines.append(f"Did you mean {str(path.parent / meant)!r}?")
    lines.append("A path is relative to the recipe file, of an override to the current folder.")
    lines.append("A data set of the hub is written owner/name; set its revision (such as main) to make that plain.")
    return "\n".join(lines)
