"""From what a person names as sources to the files behind them, each under the name that it has in the corpus."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import Problem
from ftkit.nearest import nearest


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: Where it is.
        name: Its path below the source in POSIX form; of a file named by itself, its file name.
        by_itself: Whether it was named, and not only its folder.
    """

    path: Path
    name: str
    by_itself: bool = False


def find_files(sources: Sequence[str | Path]) -> Iterator[SourceFile | Problem]:
    """All files of all sources, a folder's in the order of their names, and what cannot be followed.

    Hidden files and folders are left out. A link to a file inside its folder is followed; a link that leads out of
    it, or to nothing, is a problem. Links to folders inside are left out, for what they hold is read where it is.
    """
    for source in sources:
        path = Path(source)
        try:
            path = path.expanduser()
            is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
        except (OSError, ValueError, RuntimeError):  # too long, a zero byte, ~ of nobody
            is_folder = is_file = exists = False
        if is_folder:
            yield from _folder(path)
        elif is_file:
            yield _named(path, path.name, by_itself=True)
        elif exists:
            yield Problem(where=str(source), what="is neither a file nor a folder", fix="Name a file or a folder.")
        else:
            yield Problem(where=str(source), what="no such file or folder", fix=_missing_fix(path))


def _folder(folder: Path) -> Iterator[SourceFile | Problem]:
    root = folder.resolve()
    found: dict[str, SourceFile | Problem] = {}
    faults: list[Problem] = []

    def unreadable(error: OSError) -> None:
        what = f"cannot be read: {error.strerror}"
        faults.append(Problem(where=str(error.filename), what=what, fix="Make it readable, or leave it out."))

    for here, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        for name in [name for name in [*names, *links] if not name.startswith(".")]:
            path = Path(here) / name
            below = path.relative_to(folder).as_posix()
            entry = _entry(path, below, root)
            if entry is not None:
                found[below] = entry
    if not found and not faults:
        fix = "Hidden files are left out. Name the folder that holds the documents."
        faults.append(Problem(where=str(folder), what="holds no file", fix=fix))
    yield from faults
    yield from (found[below] for below in sorted(found))


def _entry(path: Path, below: str, root: Path) -> SourceFile | Problem | None:
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root):
            fix = f"Name {target} as a source of its own, or remove the link."
            return Problem(where=str(path), what="is a link out of its folder", fix=fix)
        if target.is_dir():
            return None
        if not target.exists():
            return Problem(where=str(path), what="is a link to nothing", fix="Mend or remove the link.")
    if not path.is_file():
        return Problem(where=str(path), what="is neither a file nor a folder", fix="Remove it.")
    return _named(path, below)


def _named(path: Path, name: str, *, by_itself: bool = False) -> SourceFile | Problem:
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return Problem(where=shown, what="its name is not UTF-8", fix="Rename it.")
    return SourceFile(path=path, name=name, by_itself=by_itself)


def _missing_fix(path: Path) -> str:
    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    except (OSError, ValueError):
        return "Its folder does not exist either. A path is relative to the current folder."
    meant = nearest(path.name, siblings)
    if meant is not None:
        return f"Did you mean {str(path.parent / meant)!r}?"
    return f"In {path.parent} there are: {', '.join(siblings[:10]) or 'no files'}."
