"""Held-back examples before and after, for the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.text import Text

MAX_CHARACTERS = 300


def print_samples(path: Path) -> None:
    """Print samples.json on stdout; an answer equal to its reference is marked."""
    console = Console()
    for sample in json.loads(path.read_text(encoding="utf-8")):
        console.print(Text(sample["prompt"], style="bold"))
        for name in ("before", "after"):
            answer = sample[name] or ""
            right = answer == sample["reference"]
            mark = Text(f"  {name:7}{'✓' if right else '✗'} ", style="green" if right else "red")
            cut = answer if len(answer) <= MAX_CHARACTERS else answer[:MAX_CHARACTERS] + " …"
            console.print(mark.append(cut.replace("\n", " ⏎ "), style="default"))
        console.print(Text(f"  wanted   {sample['reference']}", style="dim"))
        console.print()
