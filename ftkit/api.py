"""What a notebook uses: runs as objects. Everything here is one call into the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.errors import UsageError, VerificationError
from ftkit.evaluate.generation import Answer
from ftkit.export.verify import verify_export
from ftkit.notices import show_notices
from ftkit.pipeline import run as line
from ftkit.pipeline.checking import check as check_recipe
from ftkit.pipeline.exporting import export_run
from ftkit.pipeline.selftest import DEFAULT_STEPS, Selftest
from ftkit.pipeline.selftest import selftest as hold
from ftkit.pipeline.summary import summary
from ftkit.pipeline.target import Target, open_target
from ftkit.recipe import Recipe


class Run:
    """A finished run.

    Args:
        folder: The run folder.
        result: The content of its result.json.
    """

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.folder = folder
        self.result = result
        self._target: Target | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def __str__(self) -> str:
        return summary(self.folder, self.result)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(entry) for entry in text.splitlines()]

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Held-back questions with the reference and the answers before and after training."""
        return list(json.loads((self.folder / "samples.json").read_text(encoding="utf-8")))

    @property
    def target(self) -> Target:
        """The trained model in memory; loaded on first use."""
        if self._target is None:
            self._target = open_target(str(self.folder))
        return self._target

    def generate(self, prompt: str, *, max_new_tokens: int = 256) -> Answer:
        """Answer one prompt greedily."""
        return self.target.generate([prompt], max_new_tokens=max_new_tokens)[0]

    def evaluate(self, data: str | Path, *, metrics: tuple[str, ...] = ()) -> dict[str, Any]:
        """Loss, perplexity and scores on a data file."""
        return self.target.evaluate(data, metrics=metrics)

    def export(
        self, kind: str, output: str | Path | None = None, *, dtype: str = "auto", checkpoint: str = "last"
    ) -> Path:
        """Give an export of this kind, verified.

        Args:
            kind: ``adapter``, ``merged``, ``gguf`` or ``gguf-adapter``.
            output: A new folder; None for the one that the recipe already asked for.
            dtype: Of the stored weights.
            checkpoint: ``last``, ``best`` or a step (see `ftkit.pipeline.exporting.export_run`); with another than
                the last, name an output.

        Raises:
            VerificationError: It does not behave like the trained model.
        """
        if output is None and checkpoint != "last":
            raise UsageError(
                f"checkpoint {checkpoint!r} needs an output", fix="The run's own exports are of its end."
            )
        target = self.folder / "export" / kind if output is None else Path(output)
        if output is not None or not target.is_dir():
            export_run(self.folder, kind, target, dtype=dtype, checkpoint=checkpoint)
        elif not (outcome := verify_export(target)).passed:
            failed = ", ".join(check.name for check in outcome.failures)
            raise VerificationError(f"{target}: failed {failed}", fix="Do not deploy it; export into another folder.")
        return target


def run(recipe: Recipe, *, quiet: bool = False) -> Run:
    """Do everything that a recipe asks for; see `ftkit.pipeline.run.run`."""
    finished = line.run(recipe, quiet=quiet)
    return Run(finished.folder, finished.result)


def resume(folder: str | Path, *, quiet: bool = False) -> Run:
    """Go on with an interrupted run; see `ftkit.pipeline.run.resume`."""
    finished = line.resume(folder, quiet=quiet)
    return Run(finished.folder, finished.result)


def open_run(folder: str | Path) -> Run:
    """A run that is already finished.

    Raises:
        FileNotFoundError: It is not.
    """
    path = Path(folder)
    return Run(path, json.loads((path / "result.json").read_text(encoding="utf-8")))


def check(recipe: Recipe) -> dict[str, Any]:
    """Everything that can be known before training; see `ftkit.pipeline.checking.check`."""
    show_notices()
    return check_recipe(recipe)


def selftest(recipe: Recipe, *, steps: int = DEFAULT_STEPS, quiet: bool = False) -> Selftest:
    """Hold the invariants on a recipe; see `ftkit.pipeline.selftest.selftest`.

    Raises:
        VerificationError: One failed; it is named with its figures.
    """
    outcome = hold(recipe, steps=steps, quiet=quiet)
    outcome.require_passed()
    return outcome
