"""Paths in a recipe, made absolute from the folder that they are written in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ANY = "*"  # in a path of keys: whatever a name in a mapping is
# Keys that a bare value may stand for.
_OBVIOUS = ("path", "train", "replay", "encoder", "sources")
# the nearest known name takes milliseconds to find, and a file may hold thousands of strangers
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_DATA_FILE = re.compile(r"\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather|txt|md|gz|zst)$", re.IGNORECASE)


def _existing_path(text: str, folder: Path) -> str:
    """An absolute path where ``text`` names something below ``folder``, else ``text`` as it is (a hub id, a name)."""
    try:
        looks_like_path = text.startswith((".", "/", "~"))
        return _path_in(text, folder) if looks_like_path or (folder / text).exists() else text
    except OSError:  # too long for a path
        return text


def _path_in(text: str, folder: Path) -> str:
    try:
        return str((folder / Path(text).expanduser()).resolve())
    except (RuntimeError, ValueError):  # no such user's home; a zero byte. Whoever opens it will say so
        return text


def _source_path(text: str, folder: Path) -> str:
    """An absolute path, except of a hub id: ``owner/name``, where nothing here could be meant."""
    first, _, rest = text.partition("/")
    is_hub_id = _HUB_ID.fullmatch(text) is not None and not _DATA_FILE.search(rest)
    try:
        return text if is_hub_id and not (folder / first).exists() else _path_in(text, folder)
    except OSError:  # too long for a path
        return text


def anchor_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make every path in a recipe's plain values absolute, in whichever short or long form it was written."""

    def walk(value: Any, steps: tuple[str, ...], anchor: Callable[[str, Path], str]) -> Any:
        if not steps:
            if isinstance(value, list):
                return [walk(item, steps, anchor) for item in value]
            return anchor(value, folder) if isinstance(value, str) else value
        if isinstance(value, list):
            return [walk(item, steps[1:] if steps[0] == "train" else steps, anchor) for item in value]
        if isinstance(value, dict):
            return {
                key: walk(item, steps[1:], anchor) if steps[0] in (key, ANY) else item for key, item in value.items()
            }
        return walk(value, steps[1:], anchor) if steps[0] in _OBVIOUS else value

    for name_or_path in (
        ("model", "path"),
        ("model", "chat_template"),
        ("retriever", "encoder"),
        ("data", "synthetic", "generator"),
        ("members", ANY, "path"),
        ("members", ANY, "index"),
        ("router", "encoder"),
        ("current",),
    ):
        values = walk(values, name_or_path, _existing_path)
    of_rows = (("data", "train", "path"), ("data", "replay", "path"))
    for path in (*of_rows, *(("tune", *steps) for steps in of_rows)):
        values = walk(values, path, _source_path)
    for section, key in (("evaluate", "forgetting"), ("measure", "general")):
        values = walk(values, (section, key), _path_in)
    for key in ("validation", "evaluation", "test"):
        values = walk(values, ("data", key), _path_in)
        values = walk(values, ("tune", "data", key), _path_in)
    for steps in (("log",), ("test",), ("gate", "forgetting"), ("memory", "texts"), ("memory", "questions")):
        values = walk(values, steps, _path_in)
    values = walk(values, ("evidence",), _path_in)
    return dict(walk(values, ("corpus", "sources"), _path_in))
