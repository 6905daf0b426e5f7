"""The run that is disturbed, its variants, and all that must be the same in the end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.export.manifest import list_files
from ftkit.files import sha256_file
from ftkit.train.checkpoint import checkpoints_in, is_whole, step_of
from tests.faults.line import Ended, Line
from tests.faults.places import Fault
from tests.tiny import tiny_model_folder, write_rows

# 25 rows in steps of 8, 8, 8 and 1; each step but the last of an epoch is four passes.
RECIPE = """\
recipe: {recipe}
model: {model}
data: {{train: rows.jsonl, validation: 0.2, workers: 0{data}}}
method: {method}
train: {{learning_rate: 0.01, epochs: 2, batch_size: 8{train}, checkpoint_every: 2, keep_last: 2,
  validate_every: 3, log_every: 1}}
evaluate: {{samples: 2, max_new_tokens: 8}}
export: [{exports}]
output: {output}
"""
LORA = "{rank: 4, alpha: 8, dropout: 0.1, target_modules: [q_proj, v_proj]}"
VARIANTS: dict[str, dict[str, str]] = {
    "lora": {},
    "packed": {"data": ", packing: true", "train": ""},
    "streamed": {"data": ", streaming: true", "train": ", micro_batch_size: 2, max_steps: 8"},
    "full": {"recipe": "full", "method": "{}", "exports": "merged"},
}
TIMES = ("wall_s", "tokens_per_s", "peak_memory_bytes", "cuda_peak_memory_bytes")


@dataclass(frozen=True)
class Straight:
    """An uninterrupted run.

    Attributes:
        folder: It.
        digests: See `digests`.
        wall_s: How long it took.
        places: Every operation in it; the first one is number 1.
        ended: What it printed.
    """

    folder: Path
    digests: dict[str, Any]
    wall_s: float
    places: list[str]
    ended: Ended

    def at(self, label: str, *, occurrence: int = 1) -> int:
        """The number of the operation with this label, counted from its first occurrence."""
        found = [number for number, place in enumerate(self.places, 1) if place == label]
        return found[occurrence - 1]


class Ground:
    """A folder with a model, rows and recipes, and the uninterrupted runs of each variant."""

    def __init__(self, folder: Path, line: Line) -> None:
        self.folder, self.line = folder, line
        self.model = tiny_model_folder(folder / "model", num_hidden_layers=1)
        self._straight: dict[str, Straight] = {}

    def recipe(self, folder: Path, variant: str = "lora", *, output: Path | None = None) -> Path:
        """Write rows and the variant's recipe into a folder of its own."""
        write_rows(folder / "rows.jsonl", 30)
        defaults = {"recipe": "lora", "method": LORA, "data": "", "train": ", micro_batch_size: 2"}
        words = defaults | {"exports": "adapter, merged"} | VARIANTS[variant]
        path = folder / "recipe.yaml"
        path.write_text(RECIPE.format(**words, model=self.model, output=output or folder / "run"), encoding="utf-8")
        return path

    def straight(self, variant: str = "lora") -> Straight:
        """The uninterrupted run of a variant."""
        if variant not in self._straight:
            folder, log = self.folder / f"straight-{variant}", self.folder / f"{variant}.places"
            recipe = self.recipe(folder, variant)
            ended = self.line.run("train", recipe, fault=Fault(folder=folder / "run", log=log))
            assert ended.code == 0, ended.err
            places = log.read_text().splitlines()
            self._straight[variant] = Straight(folder / "run", digests(folder / "run"), ended.wall_s, places, ended)
        return self._straight[variant]


def digests(run: Path) -> dict[str, Any]:
    """All that decides whether two runs came to the same, times aside."""
    kept = checkpoints_in(run / "checkpoints")
    last = kept[-1]
    found: dict[str, Any] = {f"{last.name}/{path.name}": sha256_file(path) for path in last.glob("*.safetensors")}
    found["checkpoints"] = [path.name for path in kept]
    found["state"] = without_times(_json(last / "state.json"))
    found["trainer_state"] = _json(last / "trainer_state.json")
    found["metrics"] = [without_times(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("before", "samples", "data_report", "result"):
        text = re.sub(r'[^"]*/rows\.jsonl', "rows.jsonl", (run / f"{name}.json").read_text(encoding="utf-8"))
        found[name] = without_times(json.loads(text))
    for export in sorted((run / "export").iterdir()):
        manifest = _json(export / "manifest.json")
        # The model card names the run's recipe, which names its folder.
        found[export.name] = {name: facts for name, facts in manifest["files"].items() if name != "README.md"}
        found[f"{export.name} verified"] = _json(export / "verify.json")["passed"]
    return found


def without_times(value: Any) -> Any:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names of what is not the same."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def left_over(run: Path) -> list[str]:
    """What a run folder holds that no finished run has."""
    return sorted(
        path.relative_to(run).as_posix() for path in run.rglob("*") if path.name.startswith((".partial", ".starting"))
    )


def go_on(line: Line, recipe: Path, run: Path, *, seen: Path | None = None, **setting: Any) -> Ended:
    """Resume; or, where the run had not begun, train again, which the message says.

    Args:
        line: Runs it.
        recipe: Of the run.
        run: Its folder.
        seen: The same folder as this process reaches it, where that is another path.
        setting: See `tests.faults.line.Setting`.
    """
    if not (seen or run).is_dir():
        return line.run("train", recipe, **setting)
    ended = line.run("resume", run, **setting)
    if ended.code == 2 and ("ended before its run began" in ended.err or "is not a run folder" in ended.err):
        ended = line.run("train", recipe, **setting)
    return ended


def last_saved(run: Path) -> int | None:
    """The step of the newest whole checkpoint."""
    return max((step_of(path) for path in checkpoints_in(run / "checkpoints") if is_whole(path)), default=None)


def half_written(run: Path) -> list[str]:
    """What looks finished in a run folder and is not."""
    found = [str(path) for path in checkpoints_in(run / "checkpoints") if not is_whole(path)]
    for export in (run / "export").glob("[!.]*"):
        if list_files(export) != _json(export / "manifest.json")["files"]:
            found.append(str(export))
    return found + left_over(run)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
