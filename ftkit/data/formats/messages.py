"""OpenAI messages: ``{"messages": [{"role": "user", "content": "..."}, ...]}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, text_field
from ftkit.data.sample import ROLES, Turn
from ftkit.recipe import did_you_mean


def read_messages(messages: Any, field: str = "messages") -> tuple[Turn, ...]:
    """Turn a list of messages into turns.

    Raises:
        RowFault: Not a list, an unknown role, text missing, nothing to learn from.
    """
    if not isinstance(messages, list) or not messages:
        raise RowFault(field, "is not a list of messages")
    turns = []
    for index, message in enumerate(messages):
        place = f"{field}[{index}]"
        if not isinstance(message, dict):
            raise RowFault(place, f"is a {type(message).__name__}, not an object with role and content")
        role = text_field(message, "role", place=f"{place}.")
        if role not in ROLES:
            raise RowFault(f"{place}.role", f"{role!r} is not one of {', '.join(ROLES)}", did_you_mean(role, ROLES))
        if message.get("tool_calls"):
            raise RowFault(f"{place}.tool_calls", "tool calls cannot be trained on yet", "Remove the row.")
        turns.append(Turn(role=role, content=_content(message, place)))
    require_answer(turns, field)
    return tuple(turns)


def require_answer(turns: list[Turn], field: str) -> None:
    """Refuse a conversation without an assistant's turn, or that begins with one.

    Raises:
        RowFault: It is so.
    """
    if not any(turn.role == "assistant" for turn in turns):
        raise RowFault(field, "has no assistant turn, so there is no answer to learn", "Add it, or remove the row.")
    if turns[0].role == "assistant":
        raise RowFault(f"{field}[0]", "a conversation cannot begin with the assistant", "Begin with the user's turn.")


def _content(message: Mapping[str, Any], place: str) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise RowFault(f"{place}.content", "has parts that are not text")
        message = {"content": "".join(str(part) for part in parts)}
    return text_field(message, "content", place=f"{place}.")


FORMAT = Format(keys=("messages",), kind="chat", read=lambda row: read_messages(row.get("messages")))
