"""Running the command as a person does: exit code, stdout, stderr.

`ftkit` runs it inside the test process, as starting Python and torch anew costs seconds; `start_ftkit` starts a
process of its own, for what needs one: signals, locks, kills.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ftkit.cli.app import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def ftkit(*words: str | Path) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def start_ftkit(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftkit", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def write_recipe(folder: Path, model: Path, *, data: str = "rows.jsonl") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"recipe: lora\nmodel: {model}\n"
        f"data: {{train: {data}, validation: 0.2}}\n"
        "train: {learning_rate: 0.01, epochs: 1, batch_size: 8, checkpoint_every: 2}\n"
        f"output: {folder / 'run'}\n",
        encoding="utf-8",
    )
    return path
