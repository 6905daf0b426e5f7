"""The structure of a text, as Markdown shows it: headings, paragraphs, tables, code fences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "paragraph", "table", "fence"]
Line = tuple[int, int]
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A run of lines that belong together: ``text[start:end]``, with no space at either end.

    Attributes:
        kind: What it is.
        start: Its first character that is not space.
        end: One past its last one.
        path: The headings above it, outermost first.
        header: Of a table with a header row, that row.
        body: Of a table with a header row, where the first row behind the line of dashes begins.
    """

    kind: Kind
    start: int
    end: int
    path: tuple[str, ...]
    header: str = ""
    body: int = 0


def sections(text: str) -> Iterator[list[Block]]:
    """The blocks of a text, section by section.

    A heading (``# `` to ``###### ``, outside of code fences) opens a section, unless only headings stand before it: a
    heading without a text of its own belongs to the section below it. Every character that is not space is in exactly
    one block.
    """
    section: list[Block] = []
    for block in _blocks(text):
        if block.kind == "heading" and section and section[-1].kind != "heading":
            yield section
            section = []
        section.append(block)
    if section:
        yield section


def _blocks(text: str) -> Iterator[Block]:
    open_headings: list[tuple[int, str]] = []
    run: list[Line] = []
    fence: list[Line] = []
    mark = ""

    def path() -> tuple[str, ...]:
        return tuple(title for _, title in open_headings if title)

    for start, end in _lines(text):
        line = text[start:end]
        if mark:
            fence.append((start, end))
            if _closes(line, mark):
                yield _block(text, "fence", fence, path())
                mark, fence = "", []
            continue
        if not line.strip():
            if run:
                yield from _paragraphs(text, run, path())
                run = []
            continue
        heading, opening = _HEADING.fullmatch(line), _opens(line)
        if heading is None and not opening:
            run.append((start, end))
            continue
        yield from _paragraphs(text, run, path())
        run = []
        if heading is not None:
            level, title = len(heading[1]), " ".join((heading[2] or "").rstrip().rstrip("#").split())
            while open_headings and open_headings[-1][0] >= level:
                open_headings.pop()
            yield _block(text, "heading", [(start, end)], path())
            open_headings.append((level, title))
        elif opening:
            mark, fence = opening, [(start, end)]
    if fence:  # never closed: by Markdown's rule it reaches to the end
        yield _block(text, "fence", fence, path())
    yield from _paragraphs(text, run, path())


def _lines(text: str) -> Iterator[Line]:
    start = 0
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _opens(line: str) -> str:
    """The marks of a line that opens a code fence, or an empty text."""
    match = _FENCE.fullmatch(line)
    # Three backticks that are closed on their own line are code in a paragraph.
    return "" if match is None or (match[1][0] == "`" and "`" in match[2]) else match[1]


def _closes(line: str, mark: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(mark) and not bare.strip(mark[0])


def _paragraphs(text: str, run: list[Line], path: tuple[str, ...]) -> Iterator[Block]:
    """Lines without an empty one between them, as paragraphs and tables: two lines or more that all hold a pipe."""
    first = 0
    while first < len(run):
        is_row = "|" in text[slice(*run[first])]
        last = first
        while last < len(run) and ("|" in text[slice(*run[last])]) == is_row:
            last += 1
        if is_row and last - first > 1:
            yield _table(text, run[first:last], path)
        else:
            # A single line with a pipe is prose, and belongs to what follows it.
            while not _table_at(text, run, last) and last < len(run):
                last += 1
            yield _block(text, "paragraph", run[first:last], path)
        first = last


def _table_at(text: str, run: list[Line], at: int) -> bool:
    return at + 1 < len(run) and "|" in text[slice(*run[at])] and "|" in text[slice(*run[at + 1])]


def _table(text: str, lines: list[Line], path: tuple[str, ...]) -> Block:
    block = _block(text, "table", lines, path)
    dashes = text[slice(*lines[1])].strip()
    if len(lines) < 3 or "-" not in dashes or dashes.strip("|:- \t"):
        return block
    header = " ".join(text[slice(*lines[0])].split())
    return Block(kind="table", start=block.start, end=block.end, path=path, header=header, body=lines[2][0])


def _block(text: str, kind: Kind, lines: list[Line], path: tuple[str, ...]) -> Block:
    start, end = lines[0][0], lines[-1][1]
    body = text[start:end]
    return Block(kind=kind, start=end - len(body.lstrip()), end=start + len(body.rstrip()), path=path)
