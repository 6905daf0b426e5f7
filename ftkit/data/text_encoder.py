"""Text into token ids, and the places where a text can be cut without changing them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from tokenizers import AddedToken, Encoding, Tokenizer

from ftkit.data.words import fitting

MEMORY = 4096  # texts whose ids are remembered; generation prompts repeat in every row
SHORT = 64  # characters of the longest such text


class TextEncoder:
    """A tokenizer's own pipeline, without the tokens that it would add around a text.

    Args:
        tokenizer_json: As ``tokenizers`` serialises it.

    Attributes:
        added: Tokens that are found in a text before its model sees it.
        normalises: Whether a text is changed first, say lowercased.
    """

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.added: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        self.normalises = self._tokenizer.normalizer is not None
        self._anchors = {index: token.content for index, token in self.added.items() if _is_anchor(token)}
        self._memory: dict[str, list[int]] = {}
        neither = {"truncation": None, "padding": None}  # as set above
        self._words = fitting(self._tokenizer, json.loads(tokenizer_json) | neither)

    def ahead(self, texts: Iterable[str]) -> AbstractContextManager[None]:
        """Within this context the ids of some texts are known, where working them out together saves time."""
        return nullcontext() if self._words is None else self._words.ahead(texts)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, as ``tokenizer(text, add_special_tokens=False)`` gives them."""
        if self._words is not None:
            return self._words.ids(text)
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text: str, positions: Sequence[int]) -> tuple[array[int], list[int | None]]:
        """Token ids of a text, and where in them some of its characters begin.

        Returns:
            The ids, and for each position the ``n`` for which ``ids[:n]`` are the ids of ``text[:position]``; None
            where there is none, because a token spans the position or the text before it splits in another way.
        """
        if self._words is not None:
            return self._words.cut(text, positions)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = list(encoding.ids)
        return array("i", ids), [self._cut_at(text, position, encoding, ids) for position in positions]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, control tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _cut_at(self, text: str, position: int, encoding: Encoding, ids: list[int]) -> int | None:
        start, first = self._anchor(text, position, encoding, ids)
        head = self._remembered(text[start:position])
        end = first + len(head)
        return end if ids[first:end] == head else None

    def _anchor(self, text: str, position: int, encoding: Encoding, ids: list[int]) -> tuple[int, int]:
        """The character and the token at which the last anchor before a position begins; the text's own beginning
        where there is none.

        An anchor is found in the raw text before anything else happens to it, and what stands on its two sides is
        tokenised apart. So the ids of a text up to a position are those before the anchor, which are the whole text's
        own, and those of the stretch that begins with the anchor. The anchor stays in that stretch because some
        tokenizers (Metaspace with "first") treat the very beginning of a text in a way of its own.
        """
        before = (encoding.char_to_token(at) for at in range(position - 1, -1, -1))
        token = next((found for found in before if found is not None), -1)
        for index in range(token, -1, -1):
            content = self._anchors.get(ids[index])
            if content is None:
                continue
            chars = encoding.token_to_chars(index)
            start, end = chars if chars is not None else (0, 0)
            if end <= position and text[start:end] == content:
                return start, index
        return 0, 0

    def _remembered(self, text: str) -> list[int]:
        if len(text) > SHORT:
            return self.ids(text)
        if text not in self._memory:
            if len(self._memory) == MEMORY:
                self._memory.clear()
            self._memory[text] = self.ids(text)
        return self._memory[text]


def _is_anchor(token: AddedToken) -> bool:
    """Whether nothing around an added token decides whether it is found, or how much of the text it takes."""
    return not (token.normalized or token.lstrip or token.rstrip or token.single_word)
