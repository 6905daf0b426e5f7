"""The identity of a model folder, remembered between calls."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from ftkit.cache import cache_folder
from ftkit.files import sha256_file, sha256_json, write_json


def weights_sha256(folder: Path) -> str:
    """The identity of a model: the SHA-256 of its weights.

    For one ``model.safetensors`` it is that file's own digest, as ``sha256sum`` prints it; for shards, the digest
    of the JSON object {file name: digest}. Digests are remembered, because hashing a large checkpoint takes as long
    as reading it.
    """
    digests = {path.name: remembered_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    return next(iter(digests.values())) if len(digests) == 1 else sha256_json(digests)


def remembered_sha256(path: Path) -> str:
    """The digest of a file, remembered by path, size and modification time."""
    facts = path.stat()
    key = f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}"
    memory = cache_folder() / "digests.json"
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    if key not in known:
        known[key] = sha256_file(path)
        with contextlib.suppress(OSError):  # a read-only cache costs time, not correctness
            write_json(memory, known)
    return str(known[key])
