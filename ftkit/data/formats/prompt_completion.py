"""Prompt and completion: ``{"prompt": "...", "completion": "..."}``, both as text or both as lists of messages.

An answer inside a prompt is context: what a row asks to be learnt is its completion. A message of the prompt that
carries ``train: true`` (or ``weight: 1``) counts all the same. Lists of messages may come with ``tools``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, text_field
from ftkit.data.formats.messages import read_messages
from ftkit.data.formats.tools import read_tools
from ftkit.data.formats.turns import require_conversation
from ftkit.data.sample import Content, Turn


def _read(row: Mapping[str, Any]) -> Content:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) != isinstance(completion, list) and None not in (prompt, completion):
        listed, plain = ("prompt", "completion") if isinstance(prompt, list) else ("completion", "prompt")
        raise RowFault(
            plain, f"is no list of messages, and {listed} is one", "Give both as text, or both as lists of messages."
        )
    tools = read_tools(row.get("tools"))
    if isinstance(prompt, list):
        before = read_messages(prompt, "prompt", trained=False)
        after = read_messages(completion, "completion")
        require_conversation((*before, *after), "completion", first="prompt[0]")
        return Content(turns=before + after, tools=tools)
    question = Turn(role="user", content=text_field(row, "prompt"))
    return Content(turns=(question, Turn(role="assistant", content=text_field(row, "completion"))), tools=tools)


FORMAT = Format(keys=("prompt", "completion"), optional=("tools",), kind="exchange", read=_read)
