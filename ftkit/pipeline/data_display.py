"""Data in a notebook: the facts about it, and rows with what counts towards the loss marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ftkit.data.example import TokenizedExample
from ftkit.data.show import Decode, Piece, pieces
from ftkit.report.markup import Markup, element, join
from ftkit.units import format_count

OPENING, CLOSING = "⟦", "⟧"
# Seen on light and dark pages alike; <u> itself stays where a notebook strips styles.
COUNTS = "background: rgba(46, 160, 67, .25); text-decoration: underline"
_PERCENTILES = {"min": "shortest", "p50": "median", "p95": "95 % up to", "max": "longest"}


def facts_of(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What matters of a data report, each fact with its name.

    Args:
        report: As in data_report.json.
    """
    dropped = "".join(f"; {count:,} dropped: {reason}" for reason, count in report["dropped"].items())
    cut = f"; {report['truncated']:,} cut to max_length" if report["truncated"] else ""
    share = report["supervised_tokens"] / report["tokens"] if report["tokens"] else 0
    stops = ", ".join(map(_printable, report["stop_tokens"])) or "nothing"
    lengths = report["lengths"]
    known = [f"{name} {lengths[key]:,}" for key, name in _PERCENTILES.items() if key in lengths]
    lint = ", ".join(f"{number:,} {code}" for code, number in report["lint"]["counts"].items())
    return [
        (
            "rows",
            f"{report['rows_in']:,} read: {report['trained']:,} to train on, {report['validation']:,} held back"
            f"{dropped}{cut}",
        ),
        (
            "tokens",
            f"{format_count(report['tokens'])} in {report['sequences']:,} sequences; "
            f"{format_count(report['supervised_tokens'])} ({share:.1%}) count; answers end with {stops}",
        ),
        ("lengths", ", ".join(known)),
        ("duplicates", _repeats(report["duplicates"], report["near_duplicates"])),
        ("leaks", _repeats(report["leaks"], report["near_leaks"])),
        ("suspicious", lint or "nothing"),
    ]


def facts_text(report: dict[str, Any]) -> str:
    """`facts_of` in plain columns."""
    return "\n".join(f"{name:<10}  {fact}" for name, fact in facts_of(report))


def facts_html(report: dict[str, Any]) -> Markup:
    """`facts_of` as a table."""
    left = "text-align: left"
    rows = [
        element("tr", element("th", name, style=left), element("td", fact, style=left))
        for name, fact in facts_of(report)
    ]
    return element("table", *rows)


@dataclass(frozen=True, kw_only=True)
class ShownRow:
    """One training sequence in pieces that count or do not.

    Attributes:
        place: File and line.
        tokens: How many it has.
        supervised_tokens: How many of them count towards the loss.
        pieces: Its text, one after the other.
    """

    place: str
    tokens: int
    supervised_tokens: int
    pieces: tuple[Piece, ...]

    @property
    def head(self) -> str:
        """Where it stands, and what share of it counts."""
        share = self.supervised_tokens / self.tokens if self.tokens else 0
        return f"{self.place}  {self.tokens:,} tokens, {self.supervised_tokens:,} count ({share:.0%})"

    def __str__(self) -> str:
        marked = (
            f"{OPENING}{_printable(piece.text)}{CLOSING}" if piece.supervised else _printable(piece.text)
            for piece in self.pieces
        )
        return f"{self.head}, between {OPENING} and {CLOSING}:\n{''.join(marked)}"

    def _repr_html_(self) -> str:
        # Line breaks are tokens too, and at the end of a piece they could not be seen.
        parts = [
            element("u" if piece.supervised else "span", piece.text.replace("\n", "⏎\n"),
                    style=COUNTS if piece.supervised else None)
            for piece in self.pieces
        ]  # fmt: skip
        return join(
            element("div", element("b", self.head)),
            element("pre", *parts, dir="auto", style="white-space: pre-wrap; unicode-bidi: isolate"),
        )


class ShownRows(tuple[ShownRow, ...]):
    """Training sequences to look at: coloured in a notebook, in brackets where they are printed."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return join(*(Markup(row._repr_html_()) for row in self))


def shown(examples: Iterable[TokenizedExample], decode: Decode) -> ShownRows:
    """Cut training sequences where tokens begin or cease to count.

    Args:
        examples: The sequences.
        decode: Text of ids, special tokens included.
    """
    return ShownRows(
        ShownRow(
            place=example.place,
            tokens=len(example.input_ids),
            supervised_tokens=example.supervised_tokens,
            pieces=tuple(pieces(example, decode)),
        )
        for example in examples
    )


def _repeats(equal: int, near: int | None) -> str:
    return f"{equal:,}" + (
        "; nearly equal rows were not searched" if near is None else f", and {near:,} nearly equal"
    )


def _printable(text: str) -> str:
    """Text that cannot recolour a terminal or turn the direction of what follows: ``\\x1b`` in its place."""
    return "".join(
        "⏎\n" if letter == "\n" else letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
