"""Byte-level BPE a word at a time: the same ids as the tokenizer's own, several times faster.

A tokenizer splits a text into words by a regular expression and encodes each by itself. Most of its time goes into
splitting, and into words that it has seen before. Here the same expression is run by Python's `re`, and the ids of a
word are remembered.

Whether that may be done is read from the tokenizer's own description, never guessed: it must be one of the
expressions in `PATTERNS`, each of which stands here beside its equal for ASCII text. In a text with other characters,
stretches between spaces are treated alike where they are ASCII, and are given to the tokenizer where they are not: in
none of the expressions does a match hold a visible ASCII character and the space after it, or depend on what stands
before that space. Tokenizers of any other make are used as they are; see `ftkit.data.text_encoder`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar

from tokenizers import Tokenizer

_CASELESS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = _CASELESS
QWEN2 = _CASELESS.replace("{1,3}", "")
# Letters come first here, alone and after a space: most words are such, and no alternative that the original tries
# before begins with a letter or a space.
_LETTERS = r" [A-Za-z]+|[A-Za-z]+"
_SHORT_FORM = r"'(?:[stmd]|re|ve|ll)"
_CASELESS_ASCII = (
    rf"{_LETTERS}|(?i:{_SHORT_FORM})|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{{1,3}}| ?[^\sA-Za-z0-9]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    GPT2: rf"{_LETTERS}|{_SHORT_FORM}| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
    LLAMA3: _CASELESS_ASCII,
    QWEN2: _CASELESS_ASCII.replace("{1,3}", ""),
}
# Where digits are cut off first, one by one, what comes before a digit is matched as at the end of a text.
_DIGITS_FIRST = rf"{_LETTERS}|{_SHORT_FORM}| ?[^\sA-Za-z0-9]+|[0-9]|\s+(?![^\s0-9])|\s+"

_BORDER = re.compile(r" (?<=[!-~] )(?=[!-~])")  # the literal space first: Python then looks for it alone, and is fast
_LONGEST = 48  # characters; longer stretches are rarely seen twice
_MOST = 200_000  # about 40 MB of words, and as much of stretches that are not ASCII


class WordEncoder:
    """Encodes text a word at a time; see `fitting` for when it may.

    Args:
        tokenizer: For which `fitting` gave this class.
        description: Its JSON.
        pattern: What it splits ASCII text by.
    """

    def __init__(self, tokenizer: Tokenizer, description: dict[str, Any], pattern: str) -> None:
        self._tokenizer = tokenizer
        self._split = re.compile(pattern, re.ASCII).findall
        self._words = _Words(tokenizer)
        self._stretches = _Stretches(tokenizer)
        self._added = {token["content"]: token["id"] for token in description["added_tokens"]}
        # Longest first: the library takes the leftmost, and of those the longest.
        literals = sorted(map(re.escape, self._added), key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(literals)})") if literals else None
        self._composes = description["normalizer"] is not None

    def ids(self, text: str) -> list[int]:
        """Token ids, as the tokenizer gives without special tokens around them."""
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        found: list[int] = []
        for _, ids in self._pieces(text):
            found += ids
        return found

    def cut(self, text: str, positions: Sequence[int]) -> tuple[list[int], list[int | None]]:
        """Token ids, and where they are cut by cutting the text.

        Returns:
            The ids, and for each character position the n for which the first n of them are the ids of the text
            before that position; None where there is no such n.
        """
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return self.ids(text), [self._matching(text, position) for position in positions]
        ids: list[int] = []
        cuts: list[int | None] = [None] * len(positions)
        waiting = sorted(range(len(positions)), key=positions.__getitem__)
        at, begin = 0, 0
        for piece, found in self._pieces(text):
            end = begin + len(piece)
            while at < len(waiting) and positions[waiting[at]] < end:
                cuts[waiting[at]] = self._within(piece, found, positions[waiting[at]] - begin, len(ids))
                at += 1
            ids += found
            begin = end
        for index in waiting[at:]:
            cuts[index] = len(ids)
        return ids, cuts

    def _within(self, piece: str, ids: list[int], position: int, before: int) -> int | None:
        """Where a cut inside a piece falls among the ids, ``before`` of which come before the piece."""
        head = self.ids(piece[:position]) if position else []
        # The empty piece before a control token counts too: what is cut off there is nothing at all.
        return before + len(head) if ids[: len(head)] == head else None

    def _matching(self, text: str, position: int) -> int | None:
        ids, head = self.ids(text), self.ids(text[:position])
        return len(head) if ids[: len(head)] == head else None

    def _pieces(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """The text between control tokens, and these, with their ids."""
        for index, piece in enumerate(self._control.split(text) if self._control else [text]):
            if index % 2:
                yield piece, [self._added[piece]]
            elif piece.isascii():
                if piece:
                    yield piece, list(chain.from_iterable(map(self._words.__getitem__, self._split(piece))))
            else:
                yield piece, list(chain.from_iterable(self._mixed(piece)))

    def _mixed(self, piece: str) -> Iterator[tuple[int, ...]]:
        """Ids of a piece with characters beyond ASCII, stretch by stretch."""
        first, *others = _BORDER.split(piece)
        for stretch in (first, *(f" {other}" for other in others)):
            if stretch.isascii():
                yield from map(self._words.__getitem__, self._split(stretch))
            elif stretch:
                yield self._stretches[stretch]


class _Remembered(dict[str, tuple[int, ...]]):
    """Ids of texts that were seen before; others are worked out when they are asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, text: str) -> tuple[int, ...]:
        ids = self.work_out(text)
        if len(text) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[text] = ids
        return ids

    def work_out(self, text: str) -> tuple[int, ...]:
        """The ids of a text that is not remembered."""
        raise NotImplementedError


class _Words(_Remembered):
    """What the pattern matched: straight to the model, which takes ASCII bytes as these letters."""

    _BYTES: ClassVar[dict[int, int]] = {byte: byte + 256 for byte in range(33)} | {127: 0x121}

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._tokenize = tokenizer.model.tokenize

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        # A list first: a generator would be asked for every one of so few.
        return tuple([token.id for token in self._tokenize(text.translate(self._BYTES))])


class _Stretches(_Remembered):
    """What stands between spaces and is not ASCII."""

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def fitting(tokenizer: Tokenizer, description: dict[str, Any]) -> WordEncoder | None:
    """A `WordEncoder` where it provably gives the tokenizer's own ids, else None.

    Args:
        tokenizer: The tokenizer.
        description: Its JSON.
    """
    pattern = _pattern(description)
    if pattern is None or not (_plain_bpe(description) and _plain_tokens(description)):
        return None
    return WordEncoder(tokenizer, description, pattern)


def _plain_bpe(description: dict[str, Any]) -> bool:
    model = description["model"]
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    truncates = description.get("truncation") or description.get("padding")
    return model.get("type") == "BPE" and not any(model.get(key) for key in odd) and not truncates


def _pattern(description: dict[str, Any]) -> str | None:
    """What the tokenizer splits ASCII text by, if that is known."""
    if (description["normalizer"] or {"type": "NFC"})["type"] != "NFC":
        return None
    stages = description["pre_tokenizer"] or {}
    *before, last = stages.get("pretokenizers", [stages])
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    match before:
        case []:
            return PATTERNS[GPT2] if last.get("use_regex") else None
        case [{"type": "Digits", "individual_digits": True}]:
            return _DIGITS_FIRST if last.get("use_regex") else None
        case [{"type": "Split", "pattern": {"Regex": known}, "behavior": "Isolated", "invert": False}]:
            return None if last.get("use_regex") else PATTERNS.get(known)
    return None


def _plain_tokens(description: dict[str, Any]) -> bool:
    """Whether added tokens are found by their text alone, wherever they stand."""
    tokens = description["added_tokens"]
    odd = any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in tokens)
    # The library looks for these in two rounds: first those that are matched as written, then in what is left.
    rounds = {token["normalized"] for token in tokens}
    return not odd and len(rounds) <= 1 and all(token["content"].isascii() for token in tokens)
