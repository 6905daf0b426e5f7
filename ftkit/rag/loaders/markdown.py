"""Markdown: one document a file, with its front matter as metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftkit.errors import Problem, RecipeError
from ftkit.rag.document import Document, Value
from ftkit.rag.loaders.plain import MAX_BYTES
from ftkit.rag.loaders.reading import read_text
from ftkit.recipe.yaml12 import parse_yaml

# A page of settings. The YAML reader is slow, and a larger block between rules is prose.
MAX_FRONT_CHARACTERS = 1 << 16
_END = re.compile(r"^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.MULTILINE)
_FIX = "Mend the YAML between the --- lines, or begin the file with an empty line if it is none."


def load_markdown(path: Path, name: str) -> Iterator[Document | Problem]:
    """The text behind the front matter, as it stands, and the front matter as metadata.

    Front matter is a mapping between a first line ``---`` and the next ``---`` or ``...``; text between two rules is
    text. Lists and mappings in it become JSON text.
    """
    text = read_text(path, MAX_BYTES)
    if isinstance(text, Problem):
        yield text
        return
    front = _front_matter(text)
    if front is None:
        yield Document(id=name, text=text)
        return
    yaml, body = front
    try:
        values = parse_yaml(yaml, str(path)).values
    except RecipeError as error:
        yield from (Problem(where=one.where, what=f"front matter: {one.what}", fix=_FIX) for one in error.problems)
        return
    if isinstance(values, dict):
        yield Document(id=name, text=body, metadata={key: scalar(value) for key, value in values.items()})
    else:
        yield Document(id=name, text=text if values is not None else body)


def scalar(value: Any) -> Value:
    """A value as metadata: JSON text where it is a list or a mapping, None for a number that JSON lacks."""
    if isinstance(value, float) and not abs(value) < float("inf"):  # of NaN, every comparison is false
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _front_matter(text: str) -> tuple[str, str] | None:
    """The YAML, on the lines that it has in the file, and the text behind it."""
    first, _, rest = text.partition("\n")
    if first.rstrip() != "---":
        return None
    end = _END.search(rest, 0, MAX_FRONT_CHARACTERS)
    return None if end is None else ("\n" + rest[: end.start()], rest[end.end() :])
