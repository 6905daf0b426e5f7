"""metrics.jsonl: one line a logged step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ftkit.files import write_text


class MetricsLog:
    """Appends lines, each flushed, so that a killed run keeps what it measured.

    Args:
        path: The file; created where missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")

    def settle(self) -> None:
        """Make what was written survive a power cut: a checkpoint that does needs the lines before it."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; a line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
        return lines

    def keep_through(self, step: int) -> None:
        """Forget lines after ``step``: a resumed run writes them again."""
        kept = [line for line in self.read() if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
