"""One training row, whatever format it came in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ROLES = ("system", "user", "assistant", "tool")
Kind = Literal["chat", "exchange", "text"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: One of `ROLES`, or ``text`` for plain text.
        content: What is said; empty only beside tool calls.
        train: False for an assistant's turn that is context only.
        fields: Further keys of the message, as chat templates read them: ``tool_calls`` (arguments as objects),
            ``tool_call_id``, ``name``, ``reasoning_content``.
    """

    role: str
    content: str
    train: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> dict[str, Any]:
        """As a chat template takes it."""
        return {"role": self.role, "content": self.content, **self.fields}


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a format reads out of a row.

    Attributes:
        turns: The conversation; of plain text, one turn with the role ``text``; of a preference pair, the prompt and
            the chosen answer.
        tools: JSON schemas of the functions that the assistant may call.
        rejected: Of a preference pair, the prompt and the rejected answer; else empty.
    """

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    rejected: tuple[Turn, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row that was read and found valid.

    Attributes:
        content: The conversation, its tools, and the rejected one where there is one.
        kind: ``chat`` needs a chat template. ``exchange`` (a prompt and its completion) uses one where there is one
            and is plain text otherwise, exactly as ``ftkit generate`` will ask. ``text`` is never templated.
        place: File and line, for messages.
        group: Value of the column that ``data.group_by`` names; None where it names none.
    """

    content: Content
    kind: Kind
    place: str
    group: str | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation."""
        return self.content.turns

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that training can see; place and group do not count."""
        content = self.content
        seen = [
            self.kind == "text",
            [[turn.message, turn.train] for turn in content.turns],
            content.tools,
            [turn.message for turn in content.rejected],
        ]
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).digest()
