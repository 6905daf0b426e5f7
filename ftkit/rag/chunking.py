"""Documents cut into passages that an encoder can hold, along their structure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ftkit.rag.blocks import Block, sections
from ftkit.rag.cuts import Span, character_cut, lines, sentences, trimmed, word_cut, words
from ftkit.rag.document import Chunk, Document

SEPARATOR = " > "
_GUESS = 4  # characters in a token, to begin with


def chunk(document: Document, *, limit: int, measure: Callable[[str], int], overlap: int = 0) -> list[Chunk]:
    """Cut a document into passages of at most ``limit``.

    Headings open sections, and no passage reaches from one section into another. Within a section whole paragraphs,
    tables and code fences are packed as long as they fit. What is too long for a passage is cut: a paragraph at the
    ends of sentences, a table between rows, code between lines; what is still too long at words, and a word that is
    too long anywhere but within a letter and its accents. With no overlap, every character that is not space is in
    exactly one passage.

    Args:
        document: Its title, if it has one, is the outermost heading.
        limit: Most that ``measure(context + "\\n" + passage)`` may be. Headings that would take more than half of it
            are shortened from the left, and a table's header that would is left out.
        measure: The length of a text in the encoder's tokens; the same for the same text.
        overlap: Most of the end of a passage to repeat at the beginning of the next of its section, in sentences if
            one is short enough, else in words.

    Raises:
        ValueError: ``overlap`` is negative or more than half of the limit; or not even one character fits.
    """
    if not 0 <= overlap <= limit // 2:
        raise ValueError(f"overlap: {overlap} is not between 0 and half of the limit, {limit // 2}")
    cutter = _Cutter(document, limit=limit, measure=measure)
    return [
        Chunk(start=start, end=end, context=context)
        for section in cutter.sections
        for start, end, context in cutter.pack(cutter.atoms(section), overlap)
    ]


@dataclass(frozen=True, kw_only=True)
class _Atom:
    """What is not cut any further.

    Attributes:
        start: Its first character.
        end: One past its last.
        block: What it is of.
        context: Of a passage that begins with it.
        size: Of such a passage with nothing more in it.
    """

    start: int
    end: int
    block: Block
    context: str
    size: int


class _Cutter:
    """One document on its way into passages.

    Args:
        document: To be cut.
        limit: Of a passage with its context.
        measure: Lengths of texts.
    """

    def __init__(self, document: Document, *, limit: int, measure: Callable[[str], int]) -> None:
        self._text, self._limit, self._measure = document.text, limit, measure
        self.sections = list(sections(document.text))
        title = document.metadata.get("title")
        title = " ".join(title.split()) if isinstance(title, str) else ""
        outermost = {block.path[0] for section in self.sections for block in section if block.path}
        self._title = () if not title or title in outermost else (title,)
        self._contexts: dict[tuple[tuple[str, ...], str], str] = {}
        self._known: dict[str, int] = {}  # sizes of contexts and of the space between atoms
        self._guess = max(1, _GUESS * limit)

    def atoms(self, section: list[Block]) -> list[_Atom]:
        """A section's blocks, or parts of them, each of which fits into a passage."""
        atoms: list[_Atom] = []
        for index, block in enumerate(section):
            atom = self._atom((block.start, block.end), block, "")
            # A heading should not stand alone because the whole paragraph below it does not fit beside it.
            lone = (
                atom is not None and block.kind == "paragraph" and index > 0 and section[index - 1].kind == "heading"
            )
            if atom is None or (lone and atoms and self._joined(atoms[0], atom) > self._limit):
                atoms += self._parts(block)
            else:
                atoms.append(atom)
        return atoms

    def pack(self, atoms: list[_Atom], overlap: int) -> Iterator[tuple[int, int, str]]:
        """Passages of as many atoms as fit: start, end, context."""
        first, before = 0, (0, 0)
        while first < len(atoms):
            start, context = atoms[first].start, atoms[first].context
            if first and overlap:
                start, context = self._lead(atoms, first, before, overlap)
            total = atoms[first].size
            if start < atoms[first].start:
                total += self._measure(self._text[start : atoms[first].start])
            last = first + 1
            while last < len(atoms) and (total := total + self._added(atoms, last)) <= self._limit:
                last += 1
            # Sizes do not quite add up: words at a seam may share a token.
            while last - first > 1 and self._size((start, atoms[last - 1].end), context) > self._limit:
                last -= max(1, (last - first) // 8)
            if start < atoms[first].start and self._size((start, atoms[last - 1].end), context) > self._limit:
                start, context = atoms[first].start, atoms[first].context
            before = start, atoms[last - 1].end
            yield *before, context
            first = last

    def _size(self, span: Span, context: str) -> int:
        return self._measure(f"{context}\n{self._text[slice(*span)]}")

    def _kept(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = self._measure(text)
        return self._known[text]

    def _added(self, atoms: list[_Atom], at: int) -> int:
        """What an atom adds to a passage, with the space in front of it."""
        space = self._text[atoms[at - 1].end : atoms[at].start]
        return atoms[at].size - self._kept(atoms[at].context + "\n") + self._kept(space) - self._kept("")

    def _joined(self, first: _Atom, last: _Atom) -> int:
        return self._size((first.start, last.end), first.context)

    def _atom(self, span: Span, block: Block, header: str) -> _Atom | None:
        """A span as an atom, if it fits."""
        for context in (self._context(block.path, header), ""):
            size = self._size(span, context)
            if size <= self._limit:
                return _Atom(start=span[0], end=span[1], block=block, context=context, size=size)
            if span[1] - span[0] > 1:  # only a single character is worth a passage without its headings
                break
        return None

    def _parts(self, block: Block) -> Iterator[_Atom]:
        for span in self._spans(block):
            header = block.header if block.header and span[0] >= block.body else ""
            atom = self._atom(span, block, header)
            if atom is not None:
                yield atom
            else:
                yield from self._pieces(span, block, header)

    def _spans(self, block: Block) -> list[Span]:
        if block.kind in ("paragraph", "heading"):
            return sentences(self._text, block.start, block.end)
        if not block.header:
            return lines(self._text, block.start, block.end)
        # The header row and the dashes below it stay together.
        return [trimmed(self._text, block.start, block.body), *lines(self._text, block.body, block.end)]

    def _pieces(self, span: Span, block: Block, header: str) -> Iterator[_Atom]:
        """A span cut at words, and where one is too long, within it."""
        start, end = span
        while start < end:
            longest = self._longest(start, end, self._context(block.path, header))
            cuts = (longest, word_cut(self._text, start, longest), character_cut(self._text, start, longest))
            wanted = [cuts[0]] if longest == end else [cuts[1], cuts[2], cuts[0], start + 1]
            # Sizes need not grow with a text, so a shorter piece is tried like any other.
            tried = (self._atom(trimmed(self._text, start, cut), block, header) for cut in wanted if cut > start)
            atom = next((atom for atom in tried if atom is not None), None)
            if atom is None:
                raise ValueError(f"limit: {self._limit} has no room for {self._text[start]!r}")
            yield atom
            start = trimmed(self._text, atom.end, end)[0]

    def _longest(self, start: int, end: int, context: str) -> int:
        """About the furthest place before which the text from ``start`` on fits."""
        fits, over = start, end + 1
        width = self._guess
        while over - fits > max(1, (fits - start) // 16):
            at = min(end, start + width) if over > end else (fits + over) // 2
            if self._size(trimmed(self._text, start, at), context) <= self._limit:
                fits, width = at, width * 2
                if fits == end:
                    break
            else:
                over = at
        self._guess = max(1, fits - start)
        return fits

    def _lead(self, atoms: list[_Atom], first: int, before: Span, overlap: int) -> tuple[int, str]:
        """Where a passage begins that repeats the end of the one before it, and its context there."""
        for split in (sentences, words):
            begins = [begin for begin, _ in split(self._text, *before) if begin > before[0]]
            low = self._earliest(begins, lambda begin: self._measure(self._text[begin : before[1]]) <= overlap)
            for begin in begins[low:]:
                atom = atoms[bisect_right(atoms, begin, hi=first, key=lambda atom: atom.start) - 1]
                # Half a heading, row or line of code says nothing; whole ones may be repeated.
                if atom.block.kind == "paragraph" or (atom.start == begin and atom.block.kind != "heading"):
                    return begin, atom.context
        return atoms[first].start, atoms[first].context

    def _context(self, path: tuple[str, ...], header: str) -> str:
        """The headings and a table's header, in at most half of the limit."""
        key = (path, header)
        if key not in self._contexts:
            self._contexts[key] = self._shortened((*self._title, *path), header)
        return self._contexts[key]

    def _shortened(self, path: tuple[str, ...], header: str) -> str:
        half = self._limit // 2
        below = f"\n{header}" if header and self._measure(header) <= half else ""
        for first in range(len(path)):
            if self._measure(SEPARATOR.join(path[first:]) + below) <= half:
                return SEPARATOR.join(path[first:]) + below
        if not path:
            return below.lstrip("\n")
        # Not even the innermost heading fits whole: its last words.
        begins = [begin for begin, _ in words(path[-1], 0, len(path[-1]))]
        low = self._earliest(begins, lambda begin: self._measure(path[-1][begin:] + below) <= half)
        return path[-1][begins[low] :] + below if low < len(begins) else below.lstrip("\n")

    @staticmethod
    def _earliest(begins: list[int], fits: Callable[[int], bool]) -> int:
        """The index of the first place from which on what follows fits; ``len(begins)`` if it does from none."""
        return bisect_left(begins, True, key=fits)
