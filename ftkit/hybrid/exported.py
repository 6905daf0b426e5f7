"""A hybrid as one folder: what stands where in it.

DIR/
  manifest.json  verify.json  README.md
  hybrid.json      members, by their folders here
  members/NAME/    a member with documents is a RAG export of its own; of one without, generator/ and perhaps base/
  encoder/         of a router
  router.json  router.safetensors
  weight.json      of a mixture or a memory
  memory/          of a memory: its datastore
  closed_book/     an index without documents, where a member has none
  verification/    questions, and what the live hybrid answered before it was exported
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ftkit.errors import VerificationError
from ftkit.export.manifest import HYBRID, MANIFEST
from ftkit.hybrid.members import Member
from ftkit.rag.exported import ENCODER, GENERATOR, is_rag_export

MEMBERS = "members"


def is_hybrid_export(folder: Path) -> bool:
    """Whether a folder says that it is one; what it says further is checked where it is read."""
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == HYBRID


def require_own_members(folder: Path, encoder: str | None, members: Mapping[str, Member]) -> None:
    """Refuse an export that names anything but what stands in it: it may come from anybody.

    Raises:
        VerificationError: It does, or a part is missing or a link that leads out.
    """
    named = {} if encoder is None else {"the encoder": (encoder, ENCODER)}
    for name, one in members.items():
        place = f"{MEMBERS}/{name}"
        wanted = place if is_rag_export(folder / place) else f"{place}/{GENERATOR}"
        named[f"members.{name}.path"] = (one.path, wanted)
        if one.index is not None:
            named[f"members.{name}.index"] = (one.index, "null")
    for what, (found, wanted) in named.items():
        part = (folder / wanted).resolve()
        if found != wanted:
            raise VerificationError(
                f"{folder}: names {found!r} as {what}; in an export it must be {wanted!r}", fix="Export again."
            )
        if not part.is_dir() or not part.is_relative_to(folder.resolve()):
            raise VerificationError(f"{folder}: has no folder {wanted} of its own", fix="Copy or export it again.")
