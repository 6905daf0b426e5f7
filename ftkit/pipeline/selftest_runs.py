"""The short runs of a selftest: their recipe, and whether two of them are one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ftkit.errors import UsageError
from ftkit.files import sha256_file
from ftkit.pipeline.run_folder import RunFolder
from ftkit.recipe import Recipe
from ftkit.train.checkpoint import newest_checkpoint, step_of
from ftkit.train.metrics_log import MetricsLog

# What a line of metrics says of the machine, not of the model.
OF_THE_MACHINE = ("wall_s", "tokens_per_s", "peak_memory_bytes")
# Answers cost more than the steps of a short run; a few short ones draw on all that longer ones do.
QUESTIONS, ANSWER_TOKENS = 4, 16


def short_recipe(recipe: Recipe, output: Path, *, steps: int, exports: bool, checkpoint_every: int) -> Recipe:
    """The person's own recipe, for a few steps and with little around them.

    Args:
        recipe: Resolved.
        output: The run folder.
        steps: Optimizer steps, on the recipe's schedule: warm-up and decay keep their shares.
        exports: Whether the recipe's exports are written and verified.
        checkpoint_every: Steps between checkpoints.
    """
    train = {
        "max_steps": steps,
        "epochs": max(float(steps), recipe.train.epochs),  # so that few rows do not end the run earlier
        "checkpoint_every": checkpoint_every,
        "keep_last": 1,
        "validate_every": steps,
        "log_every": 1,
    }
    evaluate = {
        "samples": 0,
        "max_examples": min(QUESTIONS, recipe.evaluate.max_examples),
        "max_new_tokens": min(ANSWER_TOKENS, recipe.evaluate.max_new_tokens),
    }
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=train),
            "evaluate": recipe.evaluate.model_copy(update=evaluate),
            "export": recipe.export if exports else (),
            "output": str(output),
        }
    )


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a finished run left behind, as far as recipe and data decide it.

    Attributes:
        checkpoint: Of its last step.
        files: SHA-256 of the checkpoint's tensors: weights, moments, generators, the method's memory.
        lines: metrics.jsonl without what it says of the machine.
        data: Digest of the data it trained on.
    """

    checkpoint: Path
    files: dict[str, str]
    lines: list[dict[str, Any]]
    data: str

    @classmethod
    def read(cls, path: Path) -> Trace:
        """The trace of the run in a folder."""
        folder = RunFolder(path)
        checkpoint = newest_checkpoint(folder.checkpoints)
        assert checkpoint is not None, "a finished run has the checkpoint of its last step"
        lines = MetricsLog(path / "metrics.jsonl").read()
        return cls(
            checkpoint=checkpoint,
            files={file.name: sha256_file(file) for file in sorted(checkpoint.glob("*.safetensors"))},
            lines=[{key: value for key, value in line.items() if key not in OF_THE_MACHINE} for line in lines],
            data=folder.read("run.json")["data_digest"],
        )

    def differences(self, other: Trace) -> list[str]:
        """What is not the same in the other run, with figures where there are any; empty for the same run."""
        found = [] if self.data == other.data else ["the prepared data differ"]
        if step_of(self.checkpoint) != step_of(other.checkpoint):
            found.append(f"{step_of(other.checkpoint)} steps, not {step_of(self.checkpoint)}")
        found += [
            f"{name} differs{_largest_difference(self.checkpoint / name, other.checkpoint / name)}"
            for name in sorted(self.files.keys() | other.files.keys())
            if self.files.get(name) != other.files.get(name)
        ]
        if self.lines != other.lines:
            found.append(_first_difference(self.lines, other.lines))
        return found


def _largest_difference(mine: Path, theirs: Path) -> str:
    """In words; nothing where the files do not hold the same tensors, or hold states of generators."""
    if mine.name == "random.safetensors" or not (mine.is_file() and theirs.is_file()):
        return ""
    with safe_open(mine, framework="pt") as ours, safe_open(theirs, framework="pt") as others:
        if set(ours.keys()) != set(others.keys()):
            return ""
        apart = 0.0
        for name in ours.keys():  # noqa: SIM118 - an open file, no dictionary
            pair = ours.get_tensor(name).double(), others.get_tensor(name).double()
            if pair[0].shape != pair[1].shape:
                return ""
            if pair[0].numel():
                apart = max(apart, (pair[0] - pair[1]).abs().max().item())
    return f" by up to {apart:.2g}"


def _first_difference(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    for line, other in zip(mine, theirs, strict=False):
        for key in line | other:
            ours, others = line.get(key), other.get(key)
            if ours != others:
                return f"metrics of step {line['step']}: {key} {json.dumps(others)}, not {json.dumps(ours)}"
    return f"metrics: {len(theirs)} lines, not {len(mine)}"


def reached(folder: Path, steps: int) -> int | None:
    """The step that a killed run would go on from; None where there is none, or nothing after it."""
    checkpoint = newest_checkpoint(folder / "checkpoints")
    return None if checkpoint is None or step_of(checkpoint) >= steps else step_of(checkpoint)


def require_steps(steps: int) -> None:
    """Refuse a selftest that cannot be cut in two.

    Raises:
        UsageError: Less than two steps.
    """
    if steps < 2:
        raise UsageError(f"--steps {steps}: a run is cut in two", fix="Give at least 2.")
