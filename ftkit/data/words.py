"""Byte-level BPE a word at a time: the same ids as the tokenizer's own, several times faster.

A tokenizer splits a text into words by a regular expression and encodes each by itself. Most of its time goes into
splitting, and into words that it has seen before. Here the same expression is run by Python's `re`, and the ids of a
word are remembered.

Whether that may be done is read from the tokenizer's own description, never guessed: it must be one of the
expressions in `PATTERNS`, each of which stands here beside its equal for ASCII text. In a text with other characters,
stretches between spaces are treated alike where they are ASCII, and are given to the tokenizer where they are not: in
none of the expressions does a match hold a visible ASCII character and the space after it, or depend on what stands
before that space. Tokenizers of any other make are used as they are; see `ftkit.data.text_encoder`.

Many texts together are split without `re`, by `ftkit.data.borders`, and only their distinct words are looked up.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from ftkit.data.borders import SEPARATOR, cut_into_words, digits_first, gpt2, llama3, qwen2

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
# How many texts together are split in the same way as by each of these.
TOGETHER = {
    PATTERNS[GPT2]: gpt2,
    _DIGITS_FIRST: digits_first,
    PATTERNS[LLAMA3]: llama3,
    PATTERNS[QWEN2]: qwen2,
}
_WORTH = 1 << 18  # characters; the first such call imports pyarrow.compute, as long as 300 rows of a thousand take
_ROOM = 1 << 21  # characters, twice an ordinary block: the arrays that they need take some twenty times as much
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no UTF-8 holds it

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
        self._starts = TOGETHER[pattern]
        self._words = _Words(tokenizer)
        self._stretches = _Stretches(tokenizer)
        self._added = {token["content"]: token["id"] for token in description["added_tokens"]}
        # Longest first: the library takes the leftmost, and of those the longest.
        literals = sorted(map(re.escape, self._added), key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(literals)})") if literals else None
        self._composes = description["normalizer"] is not None
        self._heads = _Heads(self)
        self._ahead: dict[str, _Known] = {}

    @contextmanager
    def ahead(self, texts: Iterable[str]) -> Iterator[None]:
        """Work out the ids of many texts together, which takes a fraction of the time, and know them for a while."""
        chosen: dict[str, list[str]] = {}
        room = _ROOM
        for text in texts:
            if len(text) <= room and text not in chosen and self._bears(text):
                chosen[text] = self._apart(text)
                room -= len(text)
        if _ROOM - room >= _WORTH:
            self._ahead = self._together(chosen)
        try:
            yield
        finally:
            self._ahead = {}

    def ids(self, text: str) -> list[int]:
        """Token ids, as the tokenizer gives without special tokens around them."""
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._known(text).ids.tolist()

    def cut(self, text: str, positions: Sequence[int]) -> tuple[array[int], list[int | None]]:
        """Token ids, and where they are cut by cutting the text.

        Returns:
            The ids, and for each character position the n for which the first n of them are the ids of the text
            before that position; None where there is no such n.
        """
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return array("i", self.ids(text)), [self._matching(text, position) for position in positions]
        known = self._known(text)
        ends = list(accumulate(map(len, known.pieces)))
        return known.ids[:], [self._cut_at(known, ends, position) for position in positions]

    def _cut_at(self, known: _Known, ends: Sequence[int], position: int) -> int | None:
        """How many ids stand before a position, given where the pieces end."""
        index = bisect_right(ends, position)
        before = known.borders[index]
        within = position - (ends[index - 1] if index else 0)
        if index == len(ends) or not within:
            return before
        head = self._heads[known.pieces[index][:within]]
        cut = before + len(head)
        return cut if cut <= known.borders[index + 1] and tuple(known.ids[before:cut]) == head else None

    def _matching(self, text: str, position: int) -> int | None:
        ids, head = self.ids(text), self.ids(text[:position])
        return len(head) if ids[: len(head)] == head else None

    def _known(self, text: str) -> _Known:
        known = self._ahead.get(text)
        if known is not None:
            return known
        pieces, ids, borders = self._apart(text), list[int](), [0]
        for index, piece in enumerate(pieces):
            if index % 2:
                ids.append(self._added[piece])
            elif piece.isascii():
                ids += chain.from_iterable(map(self._words.__getitem__, self._split(piece)))
            else:
                ids += chain.from_iterable(self._mixed(piece))
            borders.append(len(ids))
        return _Known(pieces, array("i", ids), borders)

    def _apart(self, text: str) -> list[str]:
        """The text at every second place, the control tokens at the others."""
        return self._control.split(text) if self._control else [text]

    def _bears(self, text: str) -> bool:
        """Whether a text can be worked out together with others."""
        if text.isascii():
            return True
        normal = not self._composes or unicodedata.is_normalized("NFC", text)
        return normal and _HALF.search(text) is None

    def _together(self, texts: Mapping[str, list[str]]) -> dict[str, _Known]:
        """What is known of texts, given each in its pieces."""
        data = SEPARATOR.join([b"", *(piece.encode() for pieces in texts.values() for piece in pieces[::2]), b""])
        words, indices = cut_into_words(data, self._starts)
        # The separator, which is the first word, has one id here, so that those of control tokens find room.
        found = [(0,), *(self._words[word] if word.isascii() else self._stretches[word] for word in words[1:])]
        lengths = np.fromiter(map(len, found), np.int32, len(found))
        flat = np.fromiter(chain.from_iterable(found), np.int32, int(lengths.sum()))
        counts = lengths[indices]
        ends = np.cumsum(counts, dtype=np.int32)
        shifts = np.repeat((np.cumsum(lengths, dtype=np.int32) - lengths)[indices] - ends + counts, counts)
        ids = flat[np.arange(len(shifts), dtype=np.int32) + shifts]
        separators = ends[indices == 0] - 1
        controls = ([*(self._added[control] for control in pieces[1::2]), 0] for pieces in texts.values())
        ids[separators] = [0, *chain.from_iterable(controls)]
        places = iter(separators.tolist())
        begin = next(places) + 1
        known = {}
        for text, pieces in texts.items():
            within = [place - begin for place in islice(places, len(pieces) // 2 + 1)]
            borders = [0, *chain.from_iterable((place, place + 1) for place in within)][:-1]
            known[text] = _Known(pieces, array("i", ids[begin : begin + within[-1]].tobytes()), borders)
            begin += within[-1] + 1
        return known

    def _mixed(self, piece: str) -> Iterator[tuple[int, ...]]:
        """Ids of a piece with characters beyond ASCII, stretch by stretch."""
        first, *others = _BORDER.split(piece)
        for stretch in (first, *(f" {other}" for other in others)):
            if stretch.isascii():
                yield from map(self._words.__getitem__, self._split(stretch))
            elif stretch:
                yield self._stretches[stretch]


@dataclass(frozen=True, slots=True)
class _Known:
    """A text's ids.

    Attributes:
        pieces: The text between control tokens, and these, by turns.
        ids: Of all of it.
        borders: Where among the ids each piece begins, and the last one ends.
    """

    pieces: list[str]
    ids: array[int]
    borders: list[int]


class _Remembered(dict[str, tuple[int, ...]]):
    """Ids of texts that were seen before; others are worked out when they are asked for."""

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
        super().__init__()
        self._tokenize = tokenizer.model.tokenize

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        # A list first: a generator would be asked for every one of so few.
        return tuple([token.id for token in self._tokenize(text.translate(self._BYTES))])


class _Stretches(_Remembered):
    """What stands between spaces and is not ASCII."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


class _Heads(_Remembered):
    """What stands before a cut in a piece: mostly the name of a role."""

    def __init__(self, encoder: WordEncoder) -> None:
        super().__init__()
        self._encoder = encoder

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        return tuple(self._encoder.ids(text))


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
