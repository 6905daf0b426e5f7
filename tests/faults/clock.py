"""A clock that is wrong: every way in which Python code reads the time of day."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator


def turn(shifts_s: tuple[float, ...]) -> None:
    """From now on, each reading is off by the next of these seconds; the last one stays."""
    shifts = _each(shifts_s)
    real, real_ns = time.time, time.time_ns
    real_date, real_datetime = datetime.date, datetime.datetime

    class WrongDatetime(real_datetime):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz=None):
            return real_datetime.fromtimestamp(time.time(), tz)

        @classmethod
        def today(cls):
            return cls.now()

        @classmethod
        def utcnow(cls):
            return real_datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    class WrongDate(real_date):  # type: ignore[misc, valid-type]
        @classmethod
        def today(cls):
            return real_datetime.fromtimestamp(time.time()).date()

    time.time = lambda: real() + next(shifts)  # type: ignore[assignment]
    time.time_ns = lambda: real_ns() + int(next(shifts) * 1e9)  # type: ignore[assignment]
    datetime.datetime, datetime.date = WrongDatetime, WrongDate  # type: ignore[misc]


def _each(values: tuple[float, ...]) -> Iterator[float]:
    yield from values
    while True:
        yield values[-1]
