"""HTML: one document a file, as text with Markdown's signs for headings, lists, tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.errors import Problem
from ftkit.rag.document import Document, Value
from ftkit.rag.loaders.reading import missing_part, read_text

if TYPE_CHECKING:
    from bs4 import Tag
    from bs4.element import PageElement

# The parsed tree takes some fifty times as much memory.
MAX_BYTES = 16 << 20
_DROPPED = {"script", "style", "nav", "template", "head"}
_PERMALINK = "headerlink"  # the sign behind a heading that documentation links to it with
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "dd", "details", "dialog", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "ol", "p",
    "section", "summary", "table", "td", "th", "tr", "ul",
}  # fmt: skip
# A table with one of these inside was made to place things on the page: its cells are read as blocks.
_LAYOUT = ["table", *_HEADINGS]
_SPACE = re.compile(r"[ \t\n\r\f]+")  # HTML's own; a no-break space is a character


def load_web(path: Path, name: str) -> Iterator[Document | Problem]:
    """What the page says, without scripts, styles, templates and navigation.

    Headings become ``# `` lines, items of lists ``- `` or ``1. `` lines, rows of tables ``a | b | c`` with a line of
    dashes under a row of header cells, and preformatted text a code fence. Metadata: ``title`` and ``lang``.

    Raises:
        MissingPartError: Beautiful Soup is not installed.
    """
    try:
        from bs4 import BeautifulSoup, Tag
        from bs4.element import NavigableString
    except ImportError:
        raise missing_part("HTML", "beautifulsoup4") from None
    text = read_text(path, MAX_BYTES)
    if isinstance(text, Problem):
        yield text
        return
    try:
        soup = BeautifulSoup(text, "html.parser")
    except (AssertionError, RecursionError, ValueError) as error:
        yield Problem(where=str(path), what=f"is not readable as HTML: {error}", fix="Mend it, or leave it out.")
        return
    metadata: dict[str, Value] = {}
    title = _SPACE.sub(" ", soup.title.get_text()).strip() if soup.title else ""
    if title:
        metadata["title"] = title
    lang = soup.html.get("lang") if soup.html else None
    if isinstance(lang, str) and lang.strip():
        metadata["lang"] = lang.strip()
    writer = _Writer(Tag, NavigableString)
    writer.walk(soup)
    yield Document(id=name, text=writer.text(), metadata=metadata)


class _Writer:
    """Writes a tree as lines.

    Args:
        tag: Beautiful Soup's class of elements.
        plain: Its class of text; comments and the like are subclasses.
    """

    def __init__(self, tag: type, plain: type) -> None:
        self._tag, self._plain = tag, plain
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._prefix = ""  # of the open line
        self._gap = 2  # line feeds due before the next line; one inside a list
        self._lists: list[int | None] = []  # of each open list, its last number; None where it has bullets

    def text(self) -> str:
        """All that was written."""
        self._close()
        return "".join(self._blocks)

    def walk(self, root: Tag) -> None:
        """Write what is below an element; with a stack of its own, for pages nest deeper than Python calls."""
        open_tags: list[tuple[Tag, Iterator[PageElement]]] = [(root, iter(root.contents))]
        while open_tags:
            tag, rest = open_tags[-1]
            child = next(rest, None)
            if child is None:
                open_tags.pop()
                self._leave(tag.name)
            elif isinstance(child, self._tag):
                if self._enter(child):  # type: ignore[arg-type]
                    open_tags.append((child, iter(child.contents)))  # type: ignore[arg-type, attr-defined]
            elif type(child) is self._plain:
                self._line.append(str(child))

    def _enter(self, tag: Tag) -> bool:
        """Open an element; False where what is below it is dropped, or written already."""
        name = tag.name
        if name in _DROPPED or (name == "a" and _PERMALINK in tag.get_attribute_list("class")):
            return False
        if name == "table" and tag.find(_LAYOUT) is None:
            self._close()
            self._table(tag)
            return False
        if name == "pre":
            self._close()
            self._fence(tag.get_text().strip("\n"))
            return False
        if name == "br":
            self._close(gap=1)
        elif name in _HEADINGS:
            self._close()
            self._prefix = _HEADINGS[name] + " "
        elif name in ("ul", "ol"):
            self._block()
            self._lists.append(0 if name == "ol" else None)
        elif name == "li":
            self._item()
        elif name in _BLOCKS:
            self._block()
        return True

    def _leave(self, name: str) -> None:
        if name in ("ul", "ol"):
            self._close(gap=1)
            if self._lists:
                self._lists.pop()
            self._block()
        elif name in _HEADINGS:
            self._close()
            self._prefix = ""
        elif name == "li" or name in _BLOCKS:
            self._block()

    def _block(self) -> None:
        self._close(gap=1 if self._lists else 2)

    def _item(self) -> None:
        self._block()
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        indent = "  " * max(0, len(self._lists) - 1)
        self._prefix = indent + ("- " if number is None else f"{number + 1}. ")

    def _close(self, *, gap: int = 2) -> None:
        """End the open line, with so many line feeds before the next; what is blank is no line."""
        line = _SPACE.sub(" ", "".join(self._line)).strip(" ")
        self._line = []
        if line:
            self._add(self._prefix + line)
            self._prefix, self._gap = "", gap
        else:
            self._gap = max(self._gap, gap)

    def _add(self, block: str) -> None:
        if self._blocks:
            self._blocks.append("\n" * self._gap)
        self._blocks.append(block)
        self._gap = 2

    def _fence(self, code: str) -> None:
        if code.strip():
            longest = max((len(run) for run in re.findall("`+", code)), default=0)
            marks = "`" * max(3, longest + 1)
            self._add(f"{marks}\n{code}\n{marks}")

    def _table(self, table: Tag) -> None:
        """Rows of cells, each cell on one line."""
        rows = []
        for row in table.find_all("tr"):
            cells = row.find_all(["td", "th"], recursive=False)
            texts = [_SPACE.sub(" ", cell.get_text(" ")).strip().replace("|", "\\|") for cell in cells]
            if any(texts):
                rows.append((" | ".join(texts), all(cell.name == "th" for cell in cells), len(cells)))
        lines = [text for text, _, _ in rows]
        if len(rows) > 1 and rows[0][1] and rows[0][2] > 1:
            lines.insert(1, " | ".join(["---"] * rows[0][2]))
        caption = table.find("caption")
        if caption is not None and (said := _SPACE.sub(" ", caption.get_text()).strip()):
            self._add(said)
        if lines:
            self._add("\n".join(lines))
