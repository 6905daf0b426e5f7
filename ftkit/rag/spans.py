"""Spans of a passage that may be the answer to a question: names, dates, numbers and noun-like phrases, by rules.

No tagger is needed and none is loaded. What the rules take wrongly costs a try, and is no wrong question yet: it must
come through the round trip (see `ftkit.rag.roundtrip`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ftkit.evaluate.metrics import squad_words
from ftkit.rag.blame import FILLERS

Kind = Literal["date", "time", "code", "number", "name", "phrase"]

MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = re.compile(rf"\b(?:\d{{1,2}} {MONTH}(?: \d{{4}})?|{MONTH} \d{{1,2}}(?:, \d{{4}})?|{MONTH} \d{{4}})\b")
_TIME = re.compile(r"\b\d{1,2}:\d{2}\b")
# A letter and a digit in one word: postcodes, models, genes.
_CODE = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])\w+(?:-\w+)*(?![\w-])")
_NUMBER = re.compile(
    r"(?<![\w.,-])\d+(?:[.,]\d+)*(?:\s?%| (?:percent|per cent|million|billion|thousand)\b)?(?![\w-])"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?:;]['\")\]]*\s+$|\n\s*$|^\s*(?:[-*#]+\s*)?$|[\"(]$")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\s])|\n+")
_JOINS = ("of", "the", "and", "de", "van", "von", "del", "la")
_DETERMINERS = frozenset(["a", "an", "the", "its", "their", "his", "her"])
# End a noun phrase, or are none by themselves.
_GRAMMAR = (
    "about after all also although any because before between both but can could during each either every few he "
    "how i if into it itself just many may might more most much must no nor not nothing now of often one only other "
    "others over own per same several she should since some such than them themselves then these those though "
    "through to too under until up upon us very we what when where whether while whose why within without would yet"
)
_NO_NOUNS = FILLERS | _DETERMINERS | frozenset(squad_words(_GRAMMAR))
_VERBAL = re.compile(r"(?:ed|ing|ly)$")
# One word alone ("the mayor", "a town") says too little to be asked for.
PHRASE_WORDS = (2, 4)
MAX_NAME_WORDS = 6


@dataclass(frozen=True, kw_only=True)
class Span:
    """A part of a text.

    Attributes:
        start: Its first character.
        end: One past its last character.
        text: The characters between the two.
        kind: What the rules took it for.
    """

    start: int
    end: int
    text: str
    kind: Kind


def answer_spans(text: str, *, context: str = "") -> list[Span]:
    """What may be an answer, in order of place; no two overlap, and none is said twice.

    Dates go before times, codes, numbers, names and phrases where they overlap. A text's own subject, as its headings
    name it, is no answer: everything in it is about that, so most questions for it name it.

    Args:
        text: Of a passage.
        context: Headings above it.
    """
    taken: list[Span] = []
    for span in (*_matches(text, _DATE, "date"), *_matches(text, _TIME, "time"), *_matches(text, _CODE, "code"),
                 *_matches(text, _NUMBER, "number"), *_names(text), *_phrases(text)):  # fmt: skip
        if not any(span.start < other.end and other.start < span.end for other in taken):
            taken.append(span)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    subject = f" {' '.join(squad_words(' '.join([context, *headings])))} "
    found: dict[str, Span] = {}
    for span in sorted(taken, key=lambda span: span.start):
        words = " ".join(squad_words(span.text))
        if words and f" {words} " not in subject:
            found.setdefault(words, span)
    return list(found.values())


def sentence_breaks(text: str) -> list[int]:
    """Where sentences and lines begin, and where the last one ends."""
    return [0, *(found.end() for found in _SENTENCE.finditer(text)), len(text)]


def sentence_of(text: str, span: Span) -> tuple[int, int]:
    """Begin and end of the sentence or line that holds a span.

    Args:
        text: That the span's offsets count in.
        span: Of the text.
    """
    breaks = sentence_breaks(text)
    return max(place for place in breaks if place <= span.start), next(end for end in breaks if end >= span.end)


def name_spans(text: str) -> list[Span]:
    """The names alone, in order of place."""
    return list(_names(text))


def _matches(text: str, pattern: re.Pattern[str], kind: Kind) -> Iterator[Span]:
    for match in pattern.finditer(text):
        yield Span(start=match.start(), end=match.end(), text=match[0], kind=kind)


def _names(text: str) -> Iterator[Span]:
    """Runs of capitalised words. One alone at the beginning of a sentence counts where it stands elsewhere too."""
    words = list(_WORD.finditer(text))
    inner = {word[0] for word in words if _is_capital(word[0]) and not _begins_sentence(text, word.start())}
    for run in _runs(text, words):
        while run and run[0][0].lower() in _NO_NOUNS:
            run = run[1:]
        while run and run[-1][0].lower() in _JOINS:
            run = run[:-1]
        if not run or len(run) > MAX_NAME_WORDS:
            continue
        first = run[0][0]
        if len(run) == 1 and (first not in inner or len(first) < 3):
            continue
        start, end = run[0].start(), run[-1].end()
        yield Span(start=start, end=end, text=text[start:end], kind="name")


def _runs(text: str, words: list[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    run: list[re.Match[str]] = []
    for word in words:
        touches = run and text[run[-1].end() : word.start()] == " "
        if run and not (touches and (_is_capital(word[0]) or word[0] in _JOINS)):
            yield run
            run = []
        if run or _is_capital(word[0]):
            run.append(word)
    if run:
        yield run


def _phrases(text: str) -> Iterator[Span]:
    """Up to four words after a determiner, as far as none of them looks like a verb or like grammar."""
    run: list[re.Match[str]] = []
    open_, before = False, 0
    for word in [*_WORD.finditer(text), None]:
        touches = word is not None and text[before : word.start()] == " "
        counts = word is not None and word[0].islower() and word[0] not in _NO_NOUNS
        if open_ and word is not None and touches and counts and (not run or not _VERBAL.search(word[0])):
            run.append(word)
        else:
            if (
                PHRASE_WORDS[0] <= len(run) <= PHRASE_WORDS[1]
                and len(run[-1][0]) > 2
                and not _VERBAL.search(run[-1][0])
            ):
                start, end = run[0].start(), run[-1].end()
                yield Span(start=start, end=end, text=text[start:end], kind="phrase")
            run, open_ = [], word is not None and word[0].lower() in _DETERMINERS
        before = word.end() if word is not None else 0


def _begins_sentence(text: str, start: int) -> bool:
    return _SENTENCE_END.search(text[max(0, start - 8) : start]) is not None


def _is_capital(word: str) -> bool:
    return word[:1].isupper()
