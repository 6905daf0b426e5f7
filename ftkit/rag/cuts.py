"""Where a text may be cut: between lines, sentences and words, and where a character does not end."""

from __future__ import annotations

import re
import unicodedata

Span = tuple[int, int]
_SENTENCE = re.compile(
    r"""[.!?…]["'”’»)\]]*\s+"""  # a lower-case letter behind it: an abbreviation
    r"""|[。！？]["”’」』）]*\s*"""
    r"""|\n(?=[ \t]*(?:[-*+•]|\d{1,9}[.)])[ \t])"""  # an item of a list
)
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_JOINER = "\u200d"
_MAX_CLUSTER = 32  # characters; a longer one is no letter of any language


def sentences(text: str, start: int, end: int) -> list[Span]:
    """The sentences of ``text[start:end]``, without the space between them."""
    cuts = [match.end() for match in _SENTENCE.finditer(text, start, end)]
    return _spans(text, start, [cut for cut in cuts if not text[cut : cut + 1].islower()], end)


def lines(text: str, start: int, end: int) -> list[Span]:
    """The lines of ``text[start:end]`` that are not blank, without the space around them."""
    return _spans(text, start, [match.end() for match in _LINE.finditer(text, start, end)], end)


def words(text: str, start: int, end: int) -> list[Span]:
    """The words of ``text[start:end]``."""
    return _spans(text, start, [match.end() for match in _WORD.finditer(text, start, end)], end)


def _spans(text: str, start: int, cuts: list[int], end: int) -> list[Span]:
    spans = [trimmed(text, first, last) for first, last in zip([start, *cuts], [*cuts, end], strict=True)]
    return [span for span in spans if span[0] < span[1]]


def trimmed(text: str, start: int, end: int) -> Span:
    """The span without the space at its ends; of a blank one, nothing at its end."""
    piece = text[start:end]
    kept = piece.lstrip()
    first = end - len(kept)
    return first, first + len(kept.rstrip())


def word_cut(text: str, start: int, end: int) -> int:
    """The last place at or before ``end`` where no word is cut, or ``start`` if there is none behind it."""
    at = end
    while at > start and not (text[at - 1].isspace() or text[at : at + 1].isspace()):
        at -= 1
    return at if text[start:at].strip() else start


def character_cut(text: str, start: int, end: int) -> int:
    """The last place at or before ``end`` that parts no letter from its accents, or ``start`` if none is near."""
    at = end
    while at > max(start, end - _MAX_CLUSTER) and at < len(text) and _is_inside(text, at):
        at -= 1
    return start if at < len(text) and _is_inside(text, at) else at


def _is_inside(text: str, at: int) -> bool:
    after, before = text[at], text[at - 1]
    return (
        unicodedata.category(after).startswith("M")  # accents, vowel signs, variation selectors
        or _JOINER in (after, before)
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or ("\udc00" <= after <= "\udfff" and "\ud800" <= before <= "\udbff")
    )
