"""What storing a model in few bits costs, measured when it is written and recorded in the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.export.measure import Artefact, measure
from ftkit.export.trained import Trained


def quality_loss(trained: Trained, kind: str, folder: Path, reader: Path | None = None) -> dict[str, Any]:
    """Measure a written artefact on the probes, as its verification will.

    Args:
        trained: With the probes.
        kind: Of the export.
        folder: With the artefact; the tokenizer is put there, for the process that reads it.
        reader: See `ftkit.export.target.Target`.

    Returns:
        kl_mean (nats) and top1_agreement to the trained model, positions (that logits were compared at), greedy_equal
        and greedy (answers); a note of the manifest.

    Raises:
        ModelError: It cannot be loaded.
        ValueError: Its answers cannot be compared.
    """
    trained.tokenizer.save_pretrained(folder)
    probes = trained.probes
    measured = measure(Artefact(folder=folder, kind=kind, reader=reader), probes)
    return {
        "kl_mean": measured.distances["kl_mean"],
        "top1_agreement": measured.distances["top1_agreement"],
        "positions": sum(map(len, probes.positions)),
        "greedy_equal": sum(ours == theirs for ours, theirs in zip(measured.greedy, probes.greedy, strict=True)),
        "greedy": len(probes.greedy),
    }
