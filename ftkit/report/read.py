"""What a run folder holds, read without trusting that any of it is there or whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.errors import RecipeError, UsageError
from ftkit.recipe.yaml12 import parse_yaml
from ftkit.report.numbers import number, pick

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run folder.

    Attributes:
        recipe_text: recipe.yaml as it stands.
        recipe: Its values; empty where it is not YAML.
        metrics: Lines of metrics.jsonl.
        data: data_report.json, or None.
        result: result.json, or None.
        samples: samples.json, or None.
        verifications: verify.json of each export folder, by its kind; None where an export was not verified.
        missing: A sentence for each file that is not there or cannot be read.
    """

    recipe_text: str
    recipe: dict[str, Any]
    metrics: list[dict[str, Any]]
    data: dict[str, Any] | None
    result: dict[str, Any] | None
    samples: list[dict[str, Any]] | None
    verifications: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def series(self, key: str) -> list[Point]:
        """A number of metrics.jsonl over the steps, in order of steps.

        A step that stands twice (an interrupted run repeats some when it is resumed) counts with its last line.
        """
        found: dict[float, float] = {}
        for line in self.metrics:
            step, value = number(line.get("step")), number(line.get(key))
            if step is not None and value is not None:
                found[step] = value
        return sorted(found.items())


def read_run(run: Path) -> RunFiles:
    """Read all files that a report shows.

    Raises:
        UsageError: There is no recipe.yaml, so this is not a run folder.
    """
    try:
        recipe_text = (run / "recipe.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise UsageError(
            f"{run}: is not a run folder: it has no recipe.yaml", fix="Name the folder of a run."
        ) from None
    missing: list[str] = []
    data = read_json(run, "data_report.json", dict, "the data was not prepared", missing)
    metrics = read_metrics(run, missing)
    result = read_json(run, "result.json", dict, "the run has not finished", missing)
    samples = read_json(run, "samples.json", list, "no answers were generated", missing)
    return RunFiles(
        recipe_text=recipe_text,
        recipe=_recipe_values(recipe_text),
        metrics=metrics,
        data=data,
        result=result,
        samples=None if samples is None else [sample for sample in samples if isinstance(sample, dict)],
        verifications=_verifications(run, missing),
        missing=tuple(missing),
    )


def _recipe_values(text: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text, "recipe.yaml").values
    except RecipeError:
        return {}  # its text is shown all the same
    return values if isinstance(values, dict) else {}


def read_json(run: Path, name: str, kind: type, meaning: str, missing: list[str]) -> Any:
    """One JSON file of a run, or None with a sentence in ``missing``.

    Args:
        run: The run folder.
        name: Of the file.
        kind: What it holds, a dict or a list.
        meaning: What it means that there is none.
        missing: Sentences are added to it.
    """
    try:
        value = json.loads((run / name).read_bytes())
    except FileNotFoundError:
        missing.append(f"{name} is not there: {meaning}.")
        return None
    except (OSError, ValueError, RecursionError):
        missing.append(f"{name} cannot be read as JSON.")
        return None
    if not isinstance(value, kind):
        missing.append(f"{name} does not hold what it should.")
        return None
    return value


def read_metrics(run: Path, missing: list[str]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; what is wrong with them goes to ``missing``."""
    try:
        text = (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        missing.append("metrics.jsonl is not there: training has not begun.")
        return []
    lines, damaged = [], 0
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            lines.append(value)
        elif line.strip():
            damaged += 1
    if damaged:
        missing.append(f"metrics.jsonl has lines that cannot be read ({damaged}); they are left out.")
    return lines


def _verifications(run: Path, missing: list[str]) -> dict[str, dict[str, Any] | None]:
    """Of each export folder that is there."""
    folder = run / "export"
    kinds = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    # A folder that begins with a dot is an export that was being written when the run ended.
    return {
        kind: read_json(run, f"export/{kind}/verify.json", dict, "this export was not verified", missing)
        for kind in kinds
        if not kind.startswith(".")
    }


def exports_asked_for(recipe: dict[str, Any]) -> list[str]:
    """The kinds that the resolved recipe lists."""
    listed = recipe.get("export")
    entries = listed if isinstance(listed, list) else []
    kinds = [entry if isinstance(entry, str) else pick(entry, "kind") for entry in entries]
    return [kind for kind in kinds if isinstance(kind, str)]
