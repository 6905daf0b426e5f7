"""Alpaca: ``{"instruction": "...", "input": "...", "output": "..."}``; ``input`` may be missing or empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, text_field
from ftkit.data.sample import Turn


def _read(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    instruction = text_field(row, "instruction")
    extra = text_field(row, "input", required=False)
    question = f"{instruction}\n\n{extra}" if extra else instruction
    return (Turn(role="user", content=question), Turn(role="assistant", content=text_field(row, "output")))


FORMAT = Format(keys=("instruction", "output"), kind="exchange", read=_read)
