"""HTML that cannot be broken by what stands in the data.

Every text is escaped when it becomes part of an element; only what ``element`` itself made is taken as it is.
A template language would do as much, but SVG is computed, not filled in.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

VOID = {"meta", "br"}
# Not allowed in HTML at all; tab, line feed and carriage return are.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """HTML that stands as it is; every other ``str`` is text."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as HTML; what HTML cannot hold (control characters, lone surrogates) becomes U+FFFD."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", text)))


def join(*parts: str | None) -> Markup:
    """Parts one after the other; None is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def element(tag: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """One element: ``element("td", "a < b", class_="wide")`` -> ``<td class="wide">a &lt; b</td>``.

    Args:
        tag: Its name.
        children: Text, or Markup; None is left out.
        attributes: ``class_`` stands for class, ``text_anchor`` for text-anchor; numbers are rounded to two places
            (SVG coordinates); None is left out.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join(*children)}</{tag}>")


def _attribute(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: tuple[int, ...] = (), class_: str = ""
) -> Markup:
    """A table that scrolls sideways on a narrow screen.

    Args:
        head: Column titles.
        rows: Cells, text or Markup; the first of a row is its heading.
        numeric: Columns of numbers, aligned to the right.
        class_: Of the table.
    """

    def kind(column: int) -> str | None:
        return "number" if column in numeric else None

    titles = [element("th", title, scope="col", class_=kind(column)) for column, title in enumerate(head)]
    lines = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind(column)) for column, cell in enumerate(row[1:], start=1)),
        )
        for row in rows
    ]
    body = element("table", element("thead", element("tr", *titles)), element("tbody", *lines), class_=class_ or None)
    return element("div", body, class_="scroll")


def section(identifier: str, title: str, *content: str | None) -> Markup:
    """A part of the page under its own heading."""
    return element("section", element("h2", title), *content, id=identifier)


def note(text: str) -> Markup:
    """A quiet remark below a figure or table."""
    return element("p", text, class_="note")


def mark(good: bool, text: str = "") -> Markup:
    """✓ or ✗ with its meaning in words, so that neither colour nor the glyph carries it alone."""
    word = text or ("passed" if good else "failed")
    return element("span", "✓ " if good else "✗ ", word, class_="good" if good else "bad")
