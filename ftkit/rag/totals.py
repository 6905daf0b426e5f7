"""What a RAG run tells of itself as a whole: the keys of result.json that every other run has too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.export.manifest import VERIFY, library_versions, read_manifest
from ftkit.rag.encoder import EncoderPair
from ftkit.recipe import RagRecipe

GENERATOR = "generator"
# Of the reader's own result.json, what result.json of the whole run repeats.
OF_READER = (
    "steps", "total_steps", "tokens", "flops", "wall_s", "tokens_per_s", "peak_memory_bytes",
    "cuda_peak_memory_bytes", "trainable_parameters", "total_parameters", "losses", "metrics", "exports",
)  # fmt: skip


def totals(
    recipe: RagRecipe, folder: Path, stages: Mapping[str, Any], encoders: EncoderPair, generator_parameters: int
) -> dict[str, Any]:
    """Sum up the stretches of a run.

    Args:
        recipe: Resolved.
        folder: Of the run.
        stages: What each stage measured, as result.json has it.
        encoders: As they end.
        generator_parameters: Of the generator, with what its method attaches.

    Returns:
        ``steps``, ``total_steps``, ``tokens``, ``wall_s``: sums over all stretches; a token counts as often as it is
        read. ``flops``: the sum, with what the reader took to judge passages; None where a stretch does not know.
        ``tokens_per_s``: tokens over wall_s. ``peak_memory_bytes``, ``cuda_peak_memory_bytes``: the highest of all.
        ``trainable_parameters``: of generator and encoders, those that any stage changes. ``total_parameters``: of
        both together. ``losses`` and ``metrics``: the reader's, whose first measurement is of the untouched base and
        which compare with those of other runs; later stretches minimise other things, and have theirs in
        ``stages``. Without the stage reader the losses are the retriever's and there are no metrics.
        ``exports``: paths below the run, with the stage that wrote each. ``versions``: of the libraries.
    """
    parts = stretches_of(stages)
    flops = [one.get(key) for one in parts for key in ("flops", "judging_flops") if key in one]
    tokens, wall_s = sum(one["tokens"] for one in parts), sum(one["wall_s"] for one in parts)
    reader = stages.get("reader")
    peaks = [one["cuda_peak_memory_bytes"] for one in parts if one["cuda_peak_memory_bytes"] is not None]
    own = [encoders.query, *([] if encoders.query is encoders.document else [encoders.document])]
    return {
        "recipe": recipe.recipe,
        "steps": sum(one["steps"] for one in parts),
        "total_steps": sum(one["total_steps"] for one in parts),
        "tokens": tokens,
        "flops": None if None in flops else sum(flops),
        "losses": reader["losses"] if reader else _losses(parts[0]),
        "wall_s": round(wall_s, 3),
        "tokens_per_s": round(tokens / max(wall_s, 1e-9), 2),
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in parts),
        "cuda_peak_memory_bytes": max(peaks, default=None),
        "trainable_parameters": (reader["trainable_parameters"] if reader else 0) + _learning(recipe, encoders),
        "total_parameters": generator_parameters + sum(parameters_of(one.module) for one in own),
        "metrics": reader["metrics"] if reader else {"before": {}, "after": {}},
        "exports": _exports(folder, reader),
        "versions": library_versions(),
    }


def stretches_of(stages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each stretch measured, in the order in which they ran."""
    return [*(stages[name] for name in ("reader", "retriever") if name in stages), *stages.get("joint", ())]


def _losses(stretch: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "first_train": stretch["first_loss"],
        "last_train": stretch["last_loss"],
        "validation_before": stretch["validation_loss_before"],
        "validation_after": stretch["validation_loss"],
    }


def _learning(recipe: RagRecipe, encoders: EncoderPair) -> int:
    """Parameters of the encoders that learn in any stage."""
    which = recipe.retriever.train
    if which == "auto":
        which = "both" if "joint" in recipe.stages else "query" if "retriever" in recipe.stages else "none"
    if which == "none" or not {"retriever", "joint"} & set(recipe.stages):
        return 0
    learning = [encoders.query]
    if which == "both" and encoders.query is not encoders.document:
        learning.append(encoders.document)
    return sum(parameters_of(one.trainable_copy().module, learning=True) for one in learning)


def parameters_of(module: nn.Module, *, learning: bool = False) -> int:
    """How many numbers its parameters are, all of them or those that learn."""
    return sum(value.numel() for value in module.parameters() if value.requires_grad or not learning)


def _exports(folder: Path, reader: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The generator that answers first."""
    entries = []
    if (folder / GENERATOR / VERIFY).is_file():
        proof = json.loads((folder / GENERATOR / VERIFY).read_text(encoding="utf-8"))
        logits = [check["value"] for check in proof["checks"] if check["name"] == "logits_match_trained"]
        entries.append(
            {
                "kind": read_manifest(folder / GENERATOR).kind,
                "path": GENERATOR,
                "passed": proof["passed"],
                "logits": logits[0] if logits else None,
                "stage": "joint",
            }
        )
    for entry in reader["exports"] if reader else ():
        entries.append({**entry, "path": f"reader/{entry['path']}", "stage": "reader"})
    return entries
