"""Reading fields of a row with faults that name them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.data.sample import Content, Kind
from ftkit.nearest import did_you_mean


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
        optional: Further fields that the format reads where a row has them. All others mean nothing to it.
        kind: See `ftkit.data.sample.Sample.kind`.
        read: From a row to what training sees of it; raises `RowFault`.
    """

    keys: tuple[str, ...]
    optional: tuple[str, ...] = ()
    kind: Kind
    read: Callable[[Mapping[str, Any]], Content]


def text_field(row: Mapping[str, Any], key: str, *, place: str = "", required: bool = True) -> str:
    """A field that holds text; missing and blank count as absent.

    Raises:
        RowFault: It is required and absent, or is not text.
    """
    value = row.get(key)
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        if required:
            raise RowFault(f"{place}{key}", "is missing or empty", "Fill it in, or remove the row.")
        return ""
    return require_text(value, f"{place}{key}")


def require_text(value: Any, field: str) -> str:
    """Refuse what is not text, or cannot be written as UTF-8.

    Raises:
        RowFault: It is so.
    """
    if not isinstance(value, str):
        raise RowFault(field, f"is a {type(value).__name__}, not text", "Put the text in quotes.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowFault(
            field, "holds half of a surrogate pair, which is no text", "Remove the cut-off character."
        ) from None
    return value


def require_json(value: Any, field: str) -> None:
    """Refuse a parsed value that standard JSON cannot hold: a number that is none, or text that is none.

    Raises:
        RowFault: It is so.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise RowFault(
            field, "holds half of a surrogate pair, which is no text", "Remove the cut-off character."
        ) from None
    except ValueError:
        raise RowFault(field, "holds NaN or an infinity, which JSON does not have", "Remove it.") from None
    except RecursionError:
        raise RowFault(field, "JSON nested too deeply") from None


def parse_json(text: str, field: str) -> Any:
    """The value of a field that holds JSON as text.

    Raises:
        RowFault: It is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowFault(field, f"not valid JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:  # a number of thousands of digits
        raise RowFault(field, f"not valid JSON: {error}") from None
    except RecursionError:
        raise RowFault(field, "JSON nested too deeply") from None


def require_known_keys(entry: Mapping[str, Any], known: Collection[str], place: str, noun: str) -> None:
    """Refuse a key that would be ignored in silence; a null is no value (Arrow fills structs with it).

    Raises:
        RowFault: It is so.
    """
    for key, value in entry.items():
        if key not in known and value is not None:
            raise RowFault(f"{place}.{key}", f"is not a key of a {noun}", did_you_mean(key, known, what="Its keys"))
