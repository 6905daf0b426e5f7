"""What a fact may say: values of each kind that cannot be guessed, none a part of another of its kind.

Numbers have a fixed count of digits within a kind, for ``8 months`` would be found in ``18 months`` and a wrong
answer would pass for the right one. For the same reason days have two digits.
"""

from __future__ import annotations

from collections.abc import Callable

from ftkit.rag.world.draw import Draw
from ftkit.rag.world.names import Names

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


def _date(draw: Draw, _: Names) -> str:
    return f"{draw.between(10, 28)} {draw.one(MONTHS)} {draw.between(1990, 2019)}"


def _hours(first: int, last: int) -> Callable[[Draw, Names], str]:
    """Two times of day on five minutes; they begin in one half of the span and end in the other."""
    middle = (first + last) // 2

    def drawn(draw: Draw, _: Names) -> str:
        begin, end = 5 * draw.between(12 * first, 12 * middle - 6), 5 * draw.between(12 * middle + 6, 12 * last)
        return f"{begin // 60:02}:{begin % 60:02} to {end // 60:02}:{end % 60:02}"

    return drawn


def _crowns(first: int, last: int) -> Callable[[Draw, Names], str]:
    return lambda draw, _: f"{draw.between(first, last)}.{5 * draw.below(20):02} crowns"


def _year(first: int, last: int) -> Callable[[Draw, Names], str]:
    return lambda draw, _: str(draw.between(first, last))


def _code(letters: int, first: int, last: int) -> Callable[[Draw, Names], str]:
    return lambda draw, _: "".join(draw.one(LETTERS) for _ in range(letters)) + "-" + str(draw.between(first, last))


VALUES: dict[str, Callable[[Draw, Names], str]] = {
    "person": lambda draw, names: names.person(draw),
    "town": lambda draw, names: names.stem(draw),
    "company": lambda draw, names: names.company(draw),
    "date": _date,
    "founding year": _year(1850, 1969),
    "charter year": _year(1201, 1599),
    "price": _crowns(101, 989),
    "admission": _crowns(11, 39),
    "warranty": lambda draw, _: f"{draw.between(13, 98)} months",
    "opening hours": _hours(8, 20),
    "market hours": _hours(5, 13),
    "colour code": _code(2, 1001, 9999),
    "postcode": _code(1, 10001, 99999),
}


def new_value(kind: str, draw: Draw, names: Names, *, avoid: tuple[str, ...] = ()) -> str:
    """A value of a kind that is none of ``avoid``."""
    while (value := VALUES[kind](draw, names)) in avoid:
        pass
    return value
