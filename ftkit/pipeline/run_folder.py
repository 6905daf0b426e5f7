"""The files of a run, by name; the only module that knows where in a run folder things stand."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from ftkit.data.report import DataReport
from ftkit.errors import OutputError, UsageError
from ftkit.files import remove_partials, write_json, write_text
from ftkit.recipe import Recipe, decisive_values, dump_recipe, load_recipe, recipe_differences, recipe_digest

LOCK = ".lock"
STARTING = ".starting"  # stands in the folder while what makes it a run is written
_DAMAGED = "The run is damaged; train into another output."


class RunFolder:
    """A run on disk.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def probes(self) -> Path:
        """What base and trained model answer to the probes."""
        return self.path / "probes"

    def export(self, kind: str) -> Path:
        """Where an export of this kind stands."""
        return self.path / "export" / kind

    def is_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "run.json").is_file() and self.recipe_file.is_file()

    def require_fresh(self) -> None:
        """Refuse a folder that holds anything but a lock.

        Raises:
            OutputError: It does.
        """
        if self.path.is_file():
            raise OutputError(f"{self.path}: is a file, not a folder", fix="Choose another output.")
        self.abandon_start()
        if self.path.is_dir() and any(entry.name != LOCK for entry in self.path.iterdir()):
            hint = f"`ftkit resume {self.path}` goes on with it; else choose" if self.is_run() else "Choose"
            raise OutputError(f"{self.path}: exists and is not empty", fix=f"{hint} another output=FOLDER.")

    def start(self, recipe: Recipe, report: DataReport, identity: dict[str, Any], today: datetime.date) -> None:
        """Write down what this run is; run.json last, as it marks the folder as a run."""
        (self.path / STARTING).touch()
        write_text(self.recipe_file, dump_recipe(recipe))
        write_json(self.path / "data_report.json", report.to_dict())
        facts = {
            "format_version": 1,
            "recipe_digest": recipe_digest(recipe),
            "recipe": decisive_values(recipe),
            "began": today.isoformat(),
        }
        write_json(self.path / "run.json", facts | identity)
        (self.path / STARTING).unlink()

    def abandon_start(self) -> None:
        """Remove what `start` left that came to no end, if it did; the caller holds the folder."""
        if (self.path / STARTING).is_file() and not self.is_run():
            self.recipe_file.unlink(missing_ok=True)
            (self.path / "data_report.json").unlink(missing_ok=True)
            self.tidy()

    def tidy(self) -> None:
        """Remove what a killed process left half-written; the caller holds the folder."""
        remove_partials(self.path)
        (self.path / STARTING).unlink(missing_ok=True)

    def began(self) -> datetime.date | None:
        """The day on which the run began; None for runs of before this was written down."""
        day = self.read("run.json").get("began")
        return None if day is None else datetime.date.fromisoformat(day)

    def recipe(self) -> Recipe:
        """The recipe as it is written now.

        Raises:
            UsageError: This is not a run folder.
            OutputError: It was changed since the run began.
        """
        if not self.is_run():
            if (self.path / STARTING).is_file():
                raise UsageError(f"{self.path}: ended before its run began", fix="Run the same `ftkit train` again.")
            raise UsageError(f"{self.path}: is not a run folder", fix="Name a folder that `ftkit train` wrote.")
        recipe = load_recipe(self.recipe_file)
        before = self.read("run.json")
        if recipe_digest(recipe) != before.get("recipe_digest"):
            values = before.get("recipe")
            changes = recipe_differences(values, decisive_values(recipe)) if isinstance(values, dict) else []
            raise OutputError(
                f"{self.recipe_file}: was changed since the run began: "
                + ("; ".join(changes) or "in what is not known, as an older ftkit began it"),
                fix="Put it back, or train the changed recipe into another output.",
            )
        return recipe

    def has(self, name: str) -> bool:
        """Whether a file was written."""
        return (self.path / name).is_file()

    def read(self, name: str) -> Any:
        """One of the JSON files.

        Raises:
            OutputError: It is not what was written.
        """
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise OutputError(f"{self.path / name}: cannot be read: {error}", fix=_DAMAGED) from None
        if not isinstance(value, dict):
            raise OutputError(f"{self.path / name}: is not a JSON object", fix=_DAMAGED)
        return value

    def write(self, name: str, value: Any) -> None:
        """Write one of the JSON files."""
        write_json(self.path / name, value)
