"""Alpaca: ``{"instruction": "...", "input": "...", "output": "..."}``.

``input`` may be missing or empty, and so may ``system`` (text) and ``history`` (``[["question", "answer"], ...]``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, text_field
from ftkit.data.sample import Content, Turn


def _read(row: Mapping[str, Any]) -> Content:
    instruction = text_field(row, "instruction")
    extra = text_field(row, "input", required=False)
    question = f"{instruction}\n\n{extra}" if extra else instruction
    turns = [*_read_history(row.get("history")), Turn(role="user", content=question)]
    if system := text_field(row, "system", required=False):
        turns.insert(0, Turn(role="system", content=system))
    return Content(turns=(*turns, Turn(role="assistant", content=text_field(row, "output"))))


def _read_history(history: Any) -> list[Turn]:
    if history is None or history == "":  # a cell of a CSV file
        return []
    if not isinstance(history, list):
        raise RowFault("history", f"is a {type(history).__name__}, not a list of [question, answer]")
    turns = []
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowFault(f"history[{index}]", "is not a pair [question, answer]")
        for side, role in enumerate(("user", "assistant")):
            content = text_field({f"[{side}]": pair[side]}, f"[{side}]", place=f"history[{index}]")
            turns.append(Turn(role=role, content=content))
    return turns


FORMAT = Format(keys=("instruction", "output"), optional=("input", "system", "history"), kind="exchange", read=_read)
