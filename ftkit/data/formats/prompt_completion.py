"""Prompt and completion: ``{"prompt": "...", "completion": "..."}``, as text or as lists of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, text_field
from ftkit.data.formats.messages import read_messages
from ftkit.data.sample import Turn


def _read(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return read_messages(prompt + completion, "prompt + completion")
    return (
        Turn(role="user", content=text_field(row, "prompt")),
        Turn(role="assistant", content=text_field(row, "completion")),
    )


FORMAT = Format(keys=("prompt", "completion"), kind="exchange", read=_read)
