"""Row formats: one file each, and the table that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats import alpaca, messages, prompt_completion, sharegpt, text
from ftkit.data.formats.fields import Format, RowFault
from ftkit.errors import DataError

FORMATS: dict[str, Format] = {
    "messages": messages.FORMAT,
    "sharegpt": sharegpt.FORMAT,
    "alpaca": alpaca.FORMAT,
    "prompt-completion": prompt_completion.FORMAT,
    "text": text.FORMAT,
}

__all__ = ["FORMATS", "Format", "RowFault", "detect_format", "rename_columns"]


def detect_format(row: Mapping[str, Any], place: str) -> str:
    """The one format whose keys a row has.

    Raises:
        DataError: None or several fit; the message lists the candidates.
    """
    fitting = [name for name, form in FORMATS.items() if all(key in row for key in form.keys)]
    if len(fitting) == 1:
        return fitting[0]
    layouts = "; ".join(f"{name}: {', '.join(form.keys)}" for name, form in FORMATS.items())
    if fitting:
        raise DataError(
            f"{place}: fits several formats: {', '.join(fitting)}", fix="Name one with data.format in the recipe."
        )
    raise DataError(
        f"{place}: its fields ({', '.join(map(str, row))}) fit no format",
        fix=f"Formats and the fields they need: {layouts}.\n"
        "Name other columns in the recipe, for example columns: {prompt: question, completion: answer}.",
    )


def rename_columns(row: Mapping[str, Any], columns: Mapping[str, str] | None) -> dict[str, Any]:
    """Give a row the format's own keys: ``columns`` maps each of them to the name it has in the file."""
    if not columns:
        return dict(row)
    taken = set(columns.values())
    kept = {key: value for key, value in row.items() if key not in taken and key not in columns}
    return kept | {key: row[name] for key, name in columns.items() if name in row}
