"""A whole system as one folder: what stands where in it, and how everything that meets one knows it.

DIR/
  manifest.json  verify.json  README.md
  generator/       a model or an export; beside an adapter its base model in base/
  encoder/         query_encoder/ too, where questions have an encoder of their own
  reranker/        where there is one
  index/           one version of the index, with the documents' text; names the folders above by relative path
  verification/    questions, and what the live system answered before it was exported
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ftkit.errors import VerificationError
from ftkit.export.manifest import MANIFEST, RAG
from ftkit.rag.settings import DEFAULTS, SETTINGS, read_defaults, read_settings

GENERATOR, ENCODER, QUERY_ENCODER, INDEX = "generator", "encoder", "query_encoder", "index"
RERANKER = "reranker"


def is_rag_export(folder: Path) -> bool:
    """Whether a folder says that it is one; what it says further is checked where it is read."""
    path = folder / MANIFEST
    if not path.is_file():
        return False
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == RAG


def export_of_index(folder: Path) -> Path | None:
    """The export that an index folder is part of; None for an index that stands alone."""
    place = folder.resolve()
    return place.parent if place.name == INDEX and is_rag_export(place.parent) else None


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """The names that an exported index has for what stands beside it; see `ftkit.rag.settings.IndexSettings`."""

    encoder: str = f"../{ENCODER}"
    query_encoder: str | None = None
    generator: str = f"../{GENERATOR}"


def part_names(*, own_query_encoder: bool) -> PartNames:
    """Those names, with or without an encoder for questions alone."""
    return PartNames(query_encoder=f"../{QUERY_ENCODER}" if own_query_encoder else None)


def require_own_parts(export: Path) -> None:
    """Refuse an export whose index names anything but what stands in the export: it may come from anybody.

    Raises:
        VerificationError: It does, or a part is missing or a link that leads out.
        DataError: The index's settings cannot be read.
    """
    settings, usual = read_settings(export / INDEX), read_defaults(export / INDEX)
    allowed = part_names(own_query_encoder=settings.query_encoder is not None)
    for key, wanted in asdict(allowed).items():
        _require_named(export, SETTINGS, key, getattr(settings, key), wanted)
    if usual.reranker is not None:
        _require_named(export, DEFAULTS, "reranker", usual.reranker, f"../{RERANKER}")


def _require_named(export: Path, file: str, key: str, found: str | None, wanted: str | None) -> None:
    if found != wanted:
        raise VerificationError(
            f"{export / INDEX}: {file} names the {key.replace('_', ' ')} {found!r}; in an export it must be "
            f"{wanted!r}",
            fix="Export again.",
        )
    if wanted is None:
        return
    part = (export / INDEX / wanted).resolve()
    if not part.is_dir() or not part.is_relative_to(export.resolve()):
        raise VerificationError(
            f"{export}: has no folder {Path(wanted).name} of its own", fix="Copy or export it again."
        )
