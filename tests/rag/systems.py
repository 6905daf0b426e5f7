"""Small whole systems for tests: an index over the shed, answered by a base model or by an adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ftkit.rag.opening import index_documents, open_system
from ftkit.rag.threshold import StoredThreshold, generator_sha256, write_threshold

QUESTION = "What is the rake?"


def shed_index(shed: Path, folder: Path, encoder: Path, generator: Path) -> Path:
    """An index that has been edited twice: what it says now is one version of three, and one document is gone."""
    (shed / "docs" / "secret.txt").write_text("The strongbox opens with zyzzyva7.")
    index_documents([shed / "docs"], folder, encoder=str(encoder), generator=str(generator))
    system = open_system(folder)
    (shed / "docs" / "secret.txt").unlink()
    system.remove("secret.txt")
    (shed / "docs" / "rake.txt").write_text("The rake is red0, and it is new.")
    system.add(shed / "docs")
    system.index.close()
    return folder


def keep_threshold(folder: Path, value: float) -> None:
    """Let an index abstain below a confidence, as `ftkit rag eval --set-threshold` does."""
    system = open_system(folder)
    stored = StoredThreshold(
        threshold=value, max_risk=0.1, coverage=0.5, risk=0.0, questions=2, data_sha256="0" * 64,
        generator=generator_sha256(system.generator), **asdict(system.conditions),
    )  # fmt: skip
    write_threshold(folder, stored)
    system.index.close()
