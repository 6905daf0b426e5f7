"""What tells one that answers from another, without loading it."""

from __future__ import annotations

from pathlib import Path

from ftkit.export.manifest import MANIFEST
from ftkit.files import sha256_file, sha256_json
from ftkit.models.find import find_base
from ftkit.pipeline.run_folder import RunFolder


def digest_of(place: str) -> str:
    """SHA-256 of an export's manifest, of what a run says of itself, or of a model's weights.

    Raises:
        ModelError: It is none of them.
    """
    path = Path(place)
    if RunFolder(path).is_run():
        return sha256_json(
            [sha256_file(path / name) for name in ("run.json", "result.json") if (path / name).is_file()]
        )
    if (path / MANIFEST).is_file():
        return sha256_file(path / MANIFEST)
    return find_base(place).sha256
