"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, text_field
from ftkit.data.formats.messages import require_answer
from ftkit.data.sample import Turn
from ftkit.recipe import did_you_mean

SPEAKERS = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "tool": "tool",
}  # fmt: skip


def _read(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    conversation = row.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise RowFault("conversations", "is not a list of turns")
    turns = []
    for index, entry in enumerate(conversation):
        place = f"conversations[{index}]"
        if not isinstance(entry, dict):
            raise RowFault(place, f"is a {type(entry).__name__}, not an object with from and value")
        speaker = text_field(entry, "from", place=f"{place}.")
        if speaker not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            raise RowFault(f"{place}.from", f"{speaker!r} is not one of {known}", did_you_mean(speaker, SPEAKERS))
        turns.append(Turn(role=SPEAKERS[speaker], content=text_field(entry, "value", place=f"{place}.")))
    require_answer(turns, "conversations")
    return tuple(turns)


FORMAT = Format(keys=("conversations",), kind="chat", read=_read)
