"""How a row of any origin becomes a line of JSON."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Mapping
from typing import Any


class UnwritableError(ValueError):
    """A value that JSON cannot hold.

    Args:
        column: Where it stands in its row.
        what: The fault.
    """

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"{column}: {what}")
        self.column, self.what = column, what


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row as a line of JSON, in ASCII.

    Dates and times become ISO text, decimals text with all their digits, durations seconds, bytes text if they are
    UTF-8, and numbers that JSON does not have (NaN, infinities) null.

    Raises:
        UnwritableError: Naming the first column that holds something else.
    """
    try:
        return _ENCODER.encode(row).encode() + b"\n"
    except (TypeError, ValueError, RecursionError):
        pass  # the rare row: look at each column by itself
    clean = {str(name): _clean(str(name), value) for name, value in row.items()}
    try:
        return _ENCODER.encode(clean).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise UnwritableError("", f"cannot be written as JSON: {error}") from None


def without_nulls(value: Any) -> Any:
    """A value without the null fields of its structs, which Arrow adds so that all structs have the same fields."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def _clean(column: str, value: Any) -> Any:
    try:
        clean = _without_nan(value)
        _ENCODER.encode(clean)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UnwritableError(column, f"holds bytes that are not UTF-8 text (byte 0x{byte:02x})") from None
    except RecursionError:
        raise UnwritableError(column, "is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise UnwritableError(column, str(error)) from None
    return clean


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # of NaN, every comparison is false
    if isinstance(value, dict):
        return {str(key): _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return value


def _plain(value: Any) -> Any:
    """What JSON has no word for, as text or number."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, bytes):
        return value.decode()
    if callable(getattr(value, "tolist", None)):  # numbers and arrays of NumPy
        return _without_nan(value.tolist())
    raise TypeError(f"holds a {type(value).__name__}, which is neither text nor number")


# ASCII, so that half a surrogate pair survives until the check that names its field.
_ENCODER = json.JSONEncoder(allow_nan=False, default=_plain, separators=(",", ":"))
