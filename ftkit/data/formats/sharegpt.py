"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}``.

A turn from ``function_call`` holds one call or a list of them as JSON (``{"name": ..., "arguments": {...}}``), one
from ``observation`` what the tool answered. A row may have ``system`` (text) and ``tools``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, parse_json, require_known_keys, text_field
from ftkit.data.formats.tools import read_function, read_tools
from ftkit.data.formats.turns import MARKS, read_mark, require_conversation
from ftkit.data.sample import Content, Turn
from ftkit.nearest import did_you_mean

SPEAKERS = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "assistant": "assistant", "model": "assistant",
    "function_call": "assistant", "tool": "tool", "observation": "tool",
}  # fmt: skip


def _read(row: Mapping[str, Any]) -> Content:
    conversation = row.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise RowFault("conversations", "is not a list of turns")
    turns = [_read_turn(entry, f"conversations[{index}]") for index, entry in enumerate(conversation)]
    if system := text_field(row, "system", required=False):
        if turns[0].role == "system":
            raise RowFault("system", "is given, and the conversation has a system turn too", "Keep one of the two.")
        turns.insert(0, Turn(role="system", content=system))
    require_conversation(turns, "conversations")
    return Content(turns=tuple(turns), tools=read_tools(row.get("tools")))


def _read_turn(entry: Any, place: str) -> Turn:
    if not isinstance(entry, dict):
        raise RowFault(place, f"is a {type(entry).__name__}, not an object with from and value")
    if entry.get("from") is None and entry.get("role") is not None:
        raise RowFault(
            f"{place}.from",
            "is missing; this is a message with a role",
            "Set data.columns: {messages: conversations}.",
        )
    speaker = text_field(entry, "from", place=f"{place}.")
    if speaker not in SPEAKERS:
        known = ", ".join(SPEAKERS)
        raise RowFault(f"{place}.from", f"{speaker!r} is not one of {known}", did_you_mean(speaker, SPEAKERS))
    require_known_keys(entry, ("from", "value", *MARKS), place, "turn")
    role = SPEAKERS[speaker]
    value, train = text_field(entry, "value", place=f"{place}."), read_mark(entry, place, role)
    if speaker != "function_call":
        return Turn(role=role, content=value, train=train)
    return Turn(role=role, content="", train=train, fields={"tool_calls": _read_calls(value, f"{place}.value")})


def _read_calls(value: str, field: str) -> list[dict[str, Any]]:
    parsed = parse_json(value, field)
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not calls or not all(isinstance(call, dict) for call in calls):
        raise RowFault(field, "is not a function call", 'Write {"name": "...", "arguments": {...}}.')
    return [{"type": "function", "function": read_function(call, field)} for call in calls]


FORMAT = Format(keys=("conversations",), optional=("system", "tools"), kind="chat", read=_read)
