"""An example as text, cut where tokens begin or cease to count towards the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ftkit.data.example import IGNORED

LOST = "\ufffd"  # how a decoder shows bytes that are no whole character
Decode = Callable[[list[int]], str]


class Shown(Protocol):
    """What is needed of a tokenised example."""

    @property
    def input_ids(self) -> Sequence[int]:
        """Token ids."""

    @property
    def labels(self) -> Sequence[int]:
        """The same ids where a token counts, -100 elsewhere."""

    @property
    def place(self) -> str:
        """File and line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Neighbouring tokens that all count, or all do not.

    Attributes:
        tokens: Text of each; empty for all but the last token of a character that several spell.
        supervised: Whether they count towards the loss.
    """

    tokens: tuple[str, ...]
    supervised: bool

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.tokens)


def token_texts(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text that each token adds to those before it.

    Tokens decoded one by one would lose the space that some tokenizers put before a word, and a character that
    several tokens spell: so each is decoded behind its predecessors, and such a character is put to its last token.

    Args:
        ids: Token ids.
        decode: Text of ids, special tokens included.
    """
    texts: list[str] = []
    known, pending = 0, 0  # ids[known:pending] are written already and stand before what comes
    for end in range(1, len(ids) + 1):
        before = decode(list(ids[known:pending]))
        text = decode(list(ids[known:end]))
        # A character is spelt by four tokens at most; a longer wait means that the bytes are really broken.
        if text.endswith(LOST) and end < len(ids) and end - pending < 4:
            texts.append("")
            continue
        texts.append(text[len(before) :])
        known, pending = pending, end
    return texts


def pieces(example: Shown, decode: Decode) -> list[Piece]:
    """An example in pieces; their texts one after the other are its text.

    Args:
        example: With ids and labels of equal length.
        decode: Text of ids, special tokens included.
    """
    found: list[Piece] = []
    tokens: list[str] = []
    counts = False
    for text, label in zip(token_texts(example.input_ids, decode), example.labels, strict=True):
        if tokens and (label != IGNORED) != counts:
            found.append(Piece(tokens=tuple(tokens), supervised=counts))
            tokens = []
        counts = label != IGNORED
        tokens.append(text)
    if tokens:
        found.append(Piece(tokens=tuple(tokens), supervised=counts))
    return found


def shortened(parts: Iterable[Piece], characters: int) -> list[Piece]:
    """The first and the last pieces, with at most so many characters each, and how many were left out between them.

    What counts stands mostly at the end, so cutting the end off would hide it.
    """
    listed = list(parts)
    tokens = [(text, part.supervised) for part in listed for text in part.tokens]
    total = sum(len(text) for text, _ in tokens)
    if total <= characters:
        return listed
    head, tail = _within(tokens, characters // 2), _within(tokens[::-1], characters - characters // 2)
    hidden = total - sum(len(text) for text, _ in tokens[:head] + tokens[len(tokens) - tail :])
    left_out = [(f" […{hidden:,} characters…] ", False)]
    return _joined(tokens[:head]) + _joined(left_out) + _joined(tokens[len(tokens) - tail :])


def _within(tokens: Sequence[tuple[str, bool]], characters: int) -> int:
    """How many tokens fit."""
    for count, (text, _) in enumerate(tokens):
        characters -= len(text)
        if characters < 0:
            return count
    return len(tokens)


def _joined(tokens: Sequence[tuple[str, bool]]) -> list[Piece]:
    found: list[Piece] = []
    for text, supervised in tokens:
        if found and found[-1].supervised == supervised:
            found[-1] = Piece(tokens=(*found[-1].tokens, text), supervised=supervised)
        else:
            found.append(Piece(tokens=(text,), supervised=supervised))
    return found


def example_json(example: Shown, decode: Decode, *, characters: int = 4000) -> dict[str, Any]:
    """As it stands under ``examples`` in data_report.json."""
    parts = shortened(pieces(example, decode), characters)
    return {
        "place": example.place,
        "pieces": [{"text": part.text, "supervised": part.supervised} for part in parts],
    }
