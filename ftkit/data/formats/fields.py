"""Reading fields of a row with faults that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ftkit.data.sample import Turn


class RowFault(ValueError):  # noqa: N818 - collected into a DataError, never shown by itself
    """What is wrong with one field of a row.

    Args:
        field: Path of the field, such as ``messages[1].role``.
        what: The fault.
        fix: How to mend it.
    """

    def __init__(self, field: str, what: str, fix: str = "") -> None:
        super().__init__(f"{field}: {what}")
        self.field, self.what, self.fix = field, what, fix


@dataclass(frozen=True, kw_only=True)
class Format:
    """A layout of rows.

    Attributes:
        keys: Fields that every row has; they are also how the format is recognised.
        kind: See `ftkit.data.sample.Sample.kind`.
        read: From a row to turns; raises `RowFault`.
    """

    keys: tuple[str, ...]
    kind: Literal["chat", "exchange", "text"]
    read: Callable[[Mapping[str, Any]], tuple[Turn, ...]]


def text_field(row: Mapping[str, Any], key: str, *, place: str = "", required: bool = True) -> str:
    """A field that holds text; missing and blank count as absent.

    Raises:
        RowFault: It is required and absent, or is not text.
    """
    field = f"{place}{key}"
    value = row.get(key)
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        if required:
            raise RowFault(field, "is missing or empty", "Fill it in, or remove the row.")
        return ""
    if not isinstance(value, str):
        raise RowFault(field, f"is a {type(value).__name__}, not text", "Put the text in quotes.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RowFault(field, "holds half of a surrogate pair, which is no text", "Remove the cut-off character.")
    return value
