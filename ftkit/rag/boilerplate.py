"""What stands in document after document: no question for it has one answer, whatever it is asked about.

A header's date or a site's name is said truly by each of its documents, so a question for it comes through the round
trip and teaches nothing. Dates that a page gives of itself differ from page to page; they are known by their label,
in English as the prompts are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ftkit.evaluate.metrics import squad_words
from ftkit.rag.passage import Passage
from ftkit.rag.spans import Span, sentence_of

# Documents that a line or a value must stand in at least, and the share of all that it must exceed. A line that is
# repeated word for word is boilerplate sooner than a value, which several documents may well have in common.
LEAST = 5
LINE_SHARE = 0.02
VALUE_SHARE = 0.1
REPEATED_LINE = "stands in a line that many documents repeat"
REPEATED_VALUE = "is said in many documents"
PAGE_DATE = "tells of the page and not of its subject"
# Digits of a number below which any text may have it, without repeating anything.
TELLING_DIGITS = 3
_PAGE = re.compile(
    r"(?:\blast (?:updated|reviewed|modified|revised|edited|changed)\b"
    r"|^\W*(?:updated|reviewed|modified|revised|published|posted|printed|accessed|retrieved|generated)(?: on)?:"
    r"|©|\bcopyright\b)[^.]*$",
    re.IGNORECASE,
)


class Boilerplate:
    """Counts documents by line and by value.

    Args:
        found: Every passage of the corpus with its spans.
    """

    def __init__(self, found: Sequence[tuple[Passage, Sequence[Span]]]) -> None:
        self._lines: dict[str, set[str]] = {}
        self._values: dict[str, set[str]] = {}
        for passage, spans in found:
            for span in spans:
                self._lines.setdefault(_line(passage, span), set()).add(passage.document)
                self._values.setdefault(_words(span.text), set()).add(passage.document)
        self._documents = len({passage.document for passage, _ in found})

    def fault(self, passage: Passage, span: Span) -> str | None:
        """Why a span is not asked about; None where nothing speaks against it.

        Args:
            passage: That holds it, one of those that were counted.
            span: Its offsets count in the passage's text.
        """
        if self._is_common(self._lines[_line(passage, span)], LINE_SHARE):
            return REPEATED_LINE
        digits = sum(letter.isdigit() for letter in span.text)
        counts = span.kind != "number" or digits >= TELLING_DIGITS
        if counts and self._is_common(self._values[_words(span.text)], VALUE_SHARE):
            return REPEATED_VALUE
        before = passage.text[passage.text.rfind("\n", 0, span.start) + 1 : span.start]
        return PAGE_DATE if span.kind in ("date", "time", "number") and _PAGE.search(before) else None

    def _is_common(self, documents: set[str], share: float) -> bool:
        return len(documents) >= LEAST and len(documents) > share * self._documents


def _line(passage: Passage, span: Span) -> str:
    begin, end = sentence_of(passage.text, span)
    return _words(passage.text[begin:end])


def _words(text: str) -> str:
    return " ".join(squad_words(text))
