"""Running the command as a person does: another process, exit code, stdout, stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def ftkit(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-m", "ftkit", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _root(), **(env or {})},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def write_recipe(folder: Path, model: Path, *, data: str = "rows.jsonl", extra: str = "", recipe: str = "lora") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"recipe: {recipe}\nmodel: {model}\n"
        f"data: {{train: {data}, validation: 0.2}}\n"
        "train: {learning_rate: 0.01, epochs: 1, batch_size: 8, checkpoint_every: 2}\n"
        f"output: {folder / 'run'}\n{extra}",
        encoding="utf-8",
    )
    return path
