"""One training row, whatever format it came in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row that was read and found valid.

    Attributes:
        turns: The conversation; of plain text, one turn with the role ``text``.
        kind: ``chat`` needs a chat template. ``exchange`` (a prompt and its completion) uses one where there is one
            and is plain text otherwise, exactly as ``ftkit generate`` will ask. ``text`` is never templated.
        place: File and line, for messages.
    """

    turns: tuple[Turn, ...]
    kind: Literal["chat", "exchange", "text"]
    place: str

    @property
    def digest(self) -> str:
        """SHA-256 of the content; the place does not count."""
        content = json.dumps([self.kind == "text", [(turn.role, turn.content) for turn in self.turns]])
        return hashlib.sha256(content.encode()).hexdigest()
