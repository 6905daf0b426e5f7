"""Plain text, for continued pre-training: ``{"text": "..."}``; every token counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.formats.fields import Format, text_field
from ftkit.data.sample import Content, Turn


def _read(row: Mapping[str, Any]) -> Content:
    return Content(turns=(Turn(role="text", content=text_field(row, "text")),))


FORMAT = Format(keys=("text",), kind="text", read=_read)
