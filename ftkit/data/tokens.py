"""A rendered text's tokens, and where its answers begin and end among them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from ftkit.data.render import Answer
from ftkit.data.text_encoder import TextEncoder


class Tokens:
    """The tokens of a rendered text, and where in them its answers' borders are.

    Args:
        encoder: Of the text.
        text: All of it.
        answers: Whose beginnings, ends and marks are wanted.
        apart: Characters from the beginning that are tokenised by themselves.
    """

    def __init__(self, encoder: TextEncoder, text: str, answers: Sequence[Answer], *, apart: int = 0) -> None:
        self._encoder, self._text, self._apart = encoder, text, apart
        self._head = array("i", encoder.ids(text[:apart]) if apart else [])
        marks = (place for one in answers for span in one.counts for place in span)
        places = sorted({*marks, *(place for one in answers for place in (one.begin, one.end))})
        rest, cuts = self._cut(places)
        self.ids = self._head + rest
        self._at = dict(zip(places, cuts, strict=True))

    def knows(self, place: int) -> bool:
        """Whether the tokens can be cut exactly at a character."""
        return self._at[place] is not None

    def at(self, place: int) -> int:
        """How many tokens stand before a character that can be cut at."""
        count = self._at[place]
        assert count is not None
        return count

    def outward(self, place: int, limit: int) -> int:
        """Like `at`, but from the nearest place towards a limit, itself one, where the tokens can be cut."""
        if self.knows(place):
            return self.at(place)
        step = 1 if limit > place else -1
        _, cuts = self._cut(list(range(place + step, limit + step, step)))
        return next(count for count in cuts if count is not None)

    def _cut(self, places: Sequence[int]) -> tuple[array[int], list[int | None]]:
        ids, cuts = self._encoder.cut(self._text[self._apart :], [place - self._apart for place in places])
        return ids, [None if count is None else len(self._head) + count for count in cuts]


def counted(answer: Answer, tokens: Tokens) -> Iterator[tuple[int, int]]:
    """Spans of an answer's tokens that count: a token that is only partly inside a mark does, the stop always."""
    stop = tokens.at(answer.end)
    for start, end in answer.counts:
        yield tokens.outward(start, answer.begin), tokens.outward(end, answer.end)
    yield stop - 1, stop


def merged(spans: Sequence[tuple[int, int]], first: int) -> list[tuple[int, int]]:
    """Ascending and disjoint, without empty ones and without what comes before the first token that can count."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted((max(start, first), end) for start, end in spans):
        if kept and start <= kept[-1][1]:
            kept[-1] = kept[-1][0], max(end, kept[-1][1])
        elif start < end:
            kept.append((start, end))
    return kept
