"""Control tokens: what marks the turns of a conversation, and must not stand in what people say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftkit.data.chat import RenderFault
from ftkit.data.sample import Sample
from ftkit.data.text_encoder import TextEncoder


class ControlTokens:
    """Control tokens, by id and as they are spelled.

    Args:
        encoder: Of text.
        ids: Of the control tokens.
        unknown: How the token that stands for unknown characters is spelled.

    Attributes:
        contents: How each is spelled.
        pattern: Matches any of them, in one group.
    """

    def __init__(self, encoder: TextEncoder, ids: Sequence[int], unknown: str | None) -> None:
        self.contents = {index: encoder.added[index].content for index in ids if index in encoder.added}
        longest_first = sorted(self.contents.values(), key=len, reverse=True)
        self.pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "((?!))")
        self._encoder = encoder
        # Where a normaliser works on the text first, other spellings become the token too: <S> where it lowercases.
        self._normalised = {
            index
            for index, content in self.contents.items()
            if encoder.normalises and encoder.added[index].normalized and content != unknown
        }

    def refuse_spelled(self, sample: Sample) -> None:
        """Refuse a row whose own text spells a control token, with which it could forge or end a turn."""
        is_text = sample.kind == "text"
        for index, turn in enumerate(sample.turns):
            for text in _texts([turn.content, turn.fields] if turn.fields else turn.content):
                found = self._spelled(text)
                if found is not None:
                    raise _spells(found, *(("text", "text") if is_text else (turn.role, f"turn {index}")))
        for text in _texts(sample.content.tools):
            found = self._spelled(text)
            if found is not None:
                raise _spells(found, "tools", "tools")

    def _spelled(self, text: str) -> str | None:
        found = self.pattern.search(text)
        if found is not None:
            return found[0]
        if self._normalised:
            return next((self.contents[one] for one in self._encoder.ids(text) if one in self._normalised), None)
        return None


def _spells(token: str, whose: str, field: str) -> RenderFault:
    subject = {"text": "the text", "tools": "a tool's description"}.get(whose, f"the {whose}'s text")
    return RenderFault(
        f"{subject} spells the control token {token!r}, which could forge or end a turn",
        "Take it out of the data, or set data.allow_control_tokens: true to train on it as that token.",
        field,
    )


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
