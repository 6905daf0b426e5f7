"""result.json and samples.json: what a finished run tells of itself."""

from __future__ import annotations

import math
from typing import Any

import torch

from ftkit.export.manifest import library_versions
from ftkit.pipeline.answers import AnswerSet
from ftkit.pipeline.estimate import Estimate
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session
from ftkit.train.counters import TrainResult


def write_samples(folder: RunFolder, questions: AnswerSet, before: list[str], after: list[str], count: int) -> None:
    """Keep the first questions with the answers to them."""
    rows = zip(questions.questions, questions.references, before, after, strict=True)
    samples = [
        {"prompt": prompt, "reference": reference, "before": first, "after": second}
        for prompt, reference, first, second in list(rows)[:count]
    ]
    folder.write("samples.json", samples)


def result_document(
    session: Session, needs: Estimate, result: TrainResult, facts: dict[str, Any], exports: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of result.json."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    losses, packing = facts["losses"], facts["packing"]
    return {
        "recipe": session.recipe.recipe,
        "model": session.base.portable_name,
        "steps": result.steps,
        "total_steps": result.total_steps,
        "tokens": result.tokens,
        "flops": facts["flops"],
        "first_loss": finite(result.first_loss),
        "last_loss": finite(result.last_loss),
        "losses": {
            "first_train": finite(result.first_loss),
            "last_train": finite(result.last_loss),
            "validation_before": losses["before"],
            "validation_after": losses["after"],
        },
        "wall_s": round(result.wall_s, 3),
        "tokens_per_s": round(result.tokens_per_s, 2),
        "peak_memory_bytes": result.peak_memory_bytes,
        "cuda_peak_memory_bytes": result.cuda_peak_memory_bytes,
        "trainable_parameters": needs.trainable_parameters,
        "total_parameters": needs.total_parameters,
        "micro_batch_size": None if packing.on else needs.micro_batch_size,
        "packing": packing.on,
        "packing_reason": packing.reason,
        "engine": "plain",
        "device": str(session.device),
        "compute": str(session.precision.compute).removeprefix("torch."),
        "weights": str(session.precision.weights).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "metrics": facts["metrics"],
        "forgetting": facts["forgetting"],
        "exports": exports,
        "versions": library_versions(),
    }
