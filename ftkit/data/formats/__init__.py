"""Row formats: one file each, and the table that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats import alpaca, messages, preference, prompt_completion, sharegpt, text
from ftkit.data.formats.fields import Format, RowFault
from ftkit.errors import DataError
from ftkit.nearest import nearest

FORMATS: dict[str, Format] = {
    "messages": messages.FORMAT,
    "sharegpt": sharegpt.FORMAT,
    "alpaca": alpaca.FORMAT,
    "prompt-completion": prompt_completion.FORMAT,
    "text": text.FORMAT,
    "preference": preference.FORMAT,
}

__all__ = ["FORMATS", "Format", "RowFault", "detect_format"]


def detect_format(row: Mapping[str, Any], place: str) -> str:
    """The one format whose keys a row has; a key whose value is null counts only where nothing else fits.

    Raises:
        DataError: None or several fit; the message lists the candidates.
    """
    filled = [name for name, form in FORMATS.items() if all(row.get(key) is not None for key in form.keys)]
    fitting = filled or [name for name, form in FORMATS.items() if all(key in row for key in form.keys)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        needs = "; ".join(f"{name}: {', '.join(FORMATS[name].keys)}" for name in fitting)
        raise DataError(
            f"{place}: fits several formats: {', '.join(fitting)}",
            fix=f"Name one with data.format in the recipe ({needs}).",
        )
    layouts = "; ".join(f"{name}: {', '.join(form.keys)}" for name, form in FORMATS.items())
    raise DataError(
        f"{place}: its fields ({', '.join(map(str, row))}) fit no format",
        fix="".join(_near_misses(row)) + f"Formats and the fields they need: {layouts}.\n"
        "Name other columns in the recipe, for example columns: {prompt: question, completion: answer}.",
    )


def _near_misses(row: Mapping[str, Any]) -> list[str]:
    """A line for each field that is nearly one of a format's."""
    known = list(dict.fromkeys(key for form in FORMATS.values() for key in form.keys))
    lines = []
    for name in row:
        meant = nearest(str(name).lower(), known)
        if meant is not None and name not in known and meant not in row:
            lines.append(f"Did you mean {meant!r} where it has {name!r}?\n")
    return lines
