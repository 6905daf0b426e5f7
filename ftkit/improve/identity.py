"""What tells one that answers from another, without loading it."""

from __future__ import annotations

from pathlib import Path

from ftkit.export.manifest import MANIFEST
from ftkit.files import sha256_file, sha256_json
from ftkit.models.find import find_base
from ftkit.pipeline.run_folder import RunFolder

# Beside the weights: how it counts, what turns text into ids, how a chat is written, and what ends an answer.
BESIDE_WEIGHTS = (
    "config.json", "generation_config.json", "chat_template.jinja", "chat_template.json", "tokenizer.json",
    "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt",
)  # fmt: skip


def digest_of(place: str) -> str:
    """SHA-256 of an export's manifest, of what a run says of itself, or of a model's weights and what reads them.

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
    found = find_base(place)
    beside = {name: sha256_file(found.folder / name) for name in BESIDE_WEIGHTS if (found.folder / name).is_file()}
    return sha256_json([found.sha256, beside])
