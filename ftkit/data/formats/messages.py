"""OpenAI messages: ``{"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}``.

``tools`` may be missing. A message may also carry ``name``, ``tool_calls``, ``tool_call_id``, ``reasoning_content``
(or ``thinking``), and ``train`` or ``weight``, which say whether an answer counts. The role ``developer`` is read as
``system``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, require_known_keys, text_field
from ftkit.data.formats.tools import read_tool_calls, read_tools
from ftkit.data.formats.turns import MARKS, read_mark, require_conversation
from ftkit.data.sample import ROLES, Content, Turn
from ftkit.nearest import did_you_mean

KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", *MARKS)
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_messages(messages: Any, field: str = "messages", *, trained: bool = True) -> tuple[Turn, ...]:
    """Turn a list of messages into turns.

    Args:
        messages: The list as the row has it.
        field: Where it stands in the row.
        trained: Whether an answer counts that says nothing about it.

    Raises:
        RowFault: Not a list, an unknown role or key, text missing, a tool call that is none.
    """
    if not isinstance(messages, list) or not messages:
        raise RowFault(field, "is not a list of messages")
    return tuple(_read(message, f"{field}[{index}]", trained) for index, message in enumerate(messages))


def _read(message: Any, place: str, trained: bool) -> Turn:
    if not isinstance(message, dict):
        raise RowFault(place, f"is a {type(message).__name__}, not an object with role and content")
    if (turn := _plain_turn(message, trained)) is not None:
        return turn
    role = text_field(message, "role", place=f"{place}.")
    if role == "developer":
        role = "system"
    elif role not in ROLES:
        raise RowFault(f"{place}.role", f"{role!r} is not one of {', '.join(ROLES)}", did_you_mean(role, ROLES))
    require_known_keys(message, KEYS, place, "message")
    fields = _read_fields(message, place, role)
    content = _read_content(message, place, required="tool_calls" not in fields)
    return Turn(role=role, content=content, train=read_mark(message, place, role, default=trained), fields=fields)


def _plain_turn(message: Mapping[str, Any], trained: bool) -> Turn | None:
    """The turn, if it is as most are: a known role, plain text, and nothing else.

    It would come out the same without this; but messages are read by the million, and most are of this kind.
    """
    role, content = message.get("role"), message.get("content")
    if len(message) != 2 or role not in ROLES or type(content) is not str or not content or content.isspace():
        return None
    if not content.isascii() and _SURROGATE.search(content):
        return None
    return Turn(role=role, content=content, train=trained or role != "assistant")


def _read_fields(message: Mapping[str, Any], place: str, role: str) -> dict[str, Any]:
    """What templates read of a message beside its role and content."""
    fields: dict[str, Any] = {}
    if name := text_field(message, "name", place=f"{place}.", required=False):
        fields["name"] = name
    if calls := read_tool_calls(message.get("tool_calls"), f"{place}.tool_calls"):
        fields["tool_calls"] = calls
    if answers := text_field(message, "tool_call_id", place=f"{place}.", required=False):
        fields["tool_call_id"] = answers
    thoughts = {
        key: thought
        for key in ("reasoning_content", "thinking")
        if (thought := text_field(message, key, place=f"{place}.", required=False))
    }
    if len(set(thoughts.values())) > 1:
        raise RowFault(f"{place}.thinking", "is not what reasoning_content says", "Keep one of the two.")
    if thoughts:
        fields["reasoning_content"] = next(iter(thoughts.values()))
    owners = {"tool_calls": "assistant", "reasoning_content": "assistant", "tool_call_id": "tool"}
    for key, owner in owners.items():
        if key in fields and role != owner:
            written = next(iter(thoughts)) if key == "reasoning_content" else key
            raise RowFault(f"{place}.{written}", f"stands in a turn of the role {role}, not {owner}")
    return fields


def _read_content(message: Mapping[str, Any], place: str, *, required: bool) -> str:
    content = message.get("content")
    if isinstance(content, list):
        others = [part for part in content if not _is_text(part)]
        if others:
            kind = others[0].get("type") if isinstance(others[0], dict) else type(others[0]).__name__
            raise RowFault(
                f"{place}.content",
                f"has parts that are not text: {kind}",
                "Only text can be trained on; remove the part, or the row.",
            )
        message = {"content": "".join(part["text"] for part in content)}
    return text_field(message, "content", place=f"{place}.", required=required)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _read_row(row: Mapping[str, Any]) -> Content:
    turns = read_messages(row.get("messages"))
    require_conversation(turns, "messages")
    return Content(turns=turns, tools=read_tools(row.get("tools")))


FORMAT = Format(keys=("messages",), optional=("tools",), kind="chat", read=_read_row)
