"""Byte-level BPE a word at a time: the same ids as the tokenizer's own, several times faster.

Most of a tokenizer's time goes into words that it has seen before. Where its rules never look across certain borders,
the ids of a text are the ids of the stretches between them, one after another, and each needs to be encoded once.

Whether that holds is read from the tokenizer's own description, never guessed: `KNOWN_PATTERNS` lists the splitting
patterns that the borders of `_SPACE` and `_INSIDE` were derived for. All of them are ASCII, and in each of the
patterns

* no alternative matches a visible character and the space after it; at a space with a visible character behind it,
  the space is taken alone or with what follows, whatever came before;
* a run of white space leaves its last space to a visible character behind it (but not to a digit, where digits are
  cut off first), and is otherwise matched as it would be at the end of a text;
* no alternative matches the last letter or digit of a run and what follows it, a punctuation mark, a line feed, or a
  digit after a letter and the reverse.

Merges never cross the borders of such a pattern. Tokenizers of any other make are used as they are; see
`ftkit.data.text_encoder`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASELESS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN_PATTERNS = {
    "GPT-2": _GPT2,
    "Llama 3": _CASELESS.format(r"\p{N}{1,3}"),
    "Qwen 2": _CASELESS.format(r"\p{N}"),
}

# ASCII on both sides, because Python and the tokenizers' regular expressions disagree about some spaces and letters.
# The literal space stands first: Python then looks for it alone, five times as fast as a look behind everywhere.
_SPACE = re.compile(r" (?:(?<=[!-~] )(?=[!-~])|(?<=[\t-\r ] )(?=[!-/:-~]))")
# Slower to find, so only for words not seen before: `_memory.py:` is new where `_memory`, `.py` and `:` are not.
_INSIDE = re.compile(r"(?<=[A-Za-z0-9])(?=[!-/:-@\[-`{-~\n])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_LONGEST = 48  # characters; longer stretches are rarely seen twice
_MOST = 200_000  # of each of three memories, about 40 MB each


class WordEncoder:
    """Encodes text a word at a time; see `fitting` for when it may.

    Args:
        tokenizer: For which `fitting` gave this class.
        description: Its JSON.
    """

    def __init__(self, tokenizer: Tokenizer, description: dict[str, Any]) -> None:
        parts = _Parts(tokenizer)
        self._first = _Words("", parts)
        self._further = _Words(" ", parts)
        self._added = {token["content"]: token["id"] for token in description["added_tokens"]}
        # Longest first: the library takes the leftmost, and of those the longest.
        literals = sorted(map(re.escape, self._added), key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(literals)})") if literals else None
        self._composes = description["normalizer"] is not None
        self._tokenizer = tokenizer

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
            elif piece:
                first, *further = _SPACE.split(piece)
                yield piece, [*self._first[first], *chain.from_iterable(map(self._further.__getitem__, further))]


class _Remembered(dict[str, tuple[int, ...]]):
    """Ids of stretches of text that were seen before; others are worked out when they are asked for."""

    def __missing__(self, text: str) -> tuple[int, ...]:
        ids = self.work_out(text)
        if len(text) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[text] = ids
        return ids

    def work_out(self, text: str) -> tuple[int, ...]:
        """The ids of a stretch that is not remembered."""
        raise NotImplementedError


class _Words(_Remembered):
    """What stands between spaces, with the space before it if that is not in the text."""

    def __init__(self, before: str, parts: _Parts) -> None:
        super().__init__()
        self._before, self._parts = before, parts

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        return tuple(chain.from_iterable(map(self._parts.__getitem__, _INSIDE.split(self._before + text))))


class _Parts(_Remembered):
    """Parts of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def work_out(self, text: str) -> tuple[int, ...]:
        """See `_Remembered`."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def fitting(tokenizer: Tokenizer) -> WordEncoder | None:
    """A `WordEncoder` where it provably gives the tokenizer's own ids, else None."""
    description = json.loads(tokenizer.to_str())
    if not (_plain_bpe(description) and _cuts_before_words(description) and _plain_tokens(description)):
        return None
    return WordEncoder(tokenizer, description)


def _plain_bpe(description: dict[str, Any]) -> bool:
    model = description["model"]
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    truncates = description.get("truncation") or description.get("padding")
    return model.get("type") == "BPE" and not any(model.get(key) for key in odd) and not truncates


def _cuts_before_words(description: dict[str, Any]) -> bool:
    normalizer = description["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC":
        return False
    stages = description["pre_tokenizer"] or {}
    stages = stages.get("pretokenizers", [stages])
    if stages and stages[0].get("type") == "Digits":  # isolates digits; letters and spaces stay as they are
        stages = stages[1:]
    *splits, last = stages or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return False
    if not splits:
        return bool(last.get("use_regex"))
    split = splits[0]
    known = split.get("type") == "Split" and split["pattern"].get("Regex") in KNOWN_PATTERNS.values()
    isolates = known and split["behavior"] == "Isolated" and not split["invert"]
    return len(splits) == 1 and isolates


def _plain_tokens(description: dict[str, Any]) -> bool:
    """Whether added tokens are found by their text alone, wherever they stand."""
    tokens = description["added_tokens"]
    odd = any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in tokens)
    # The library looks for these in two rounds: first those that are matched as written, then in what is left.
    rounds = {token["normalized"] for token in tokens}
    return not odd and len(rounds) <= 1 and all(token["content"].isascii() for token in tokens)
