"""Bundles and verification of whatever can be exported: models, adapters, and whole systems."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ftkit.errors import OutputError, UsageError
from ftkit.export.archive import compression_of
from ftkit.export.manifest import RAG
from ftkit.export.run_guide import MODEL_FOLDER
from ftkit.export.verify import Verification
from ftkit.pipeline import bundling
from ftkit.pipeline.bundling import Bundle, Packing
from ftkit.rag.exported import is_rag_export
from ftkit.rag.exporting import export_rag
from ftkit.rag.opening import is_rag_place
from ftkit.rag.proving import verify_folder


def bundle(
    source: str | Path,
    file: str | Path,
    *,
    kind: str | None = None,
    dtype: str = "auto",
    packing: Packing | None = None,
    quiet: bool = False,
) -> Bundle:
    """Write one archive for a machine without network; see `ftkit.pipeline.bundling.bundle`.

    An index and a RAG run are exported and verified first, as a run is.
    """
    place, target = Path(source), Path(file)
    if not is_rag_place(place) or is_rag_export(place):
        return bundling.bundle(place, target, kind=kind, dtype=dtype, packing=packing, quiet=quiet)
    require_rag_options(place, kind, dtype=dtype)
    compression_of(target)
    if target.exists():
        raise OutputError(f"{target}: exists already", fix="Choose another output, or delete it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ftkit-bundle-") as scratch:
        exported = Path(scratch) / MODEL_FOLDER
        export_rag(place, exported, quiet=quiet)
        return bundling.bundle(exported, target, packing=packing, quiet=quiet)


def require_rag_options(place: Path, kind: str | None, *, dtype: str = "auto", checkpoint: str = "last") -> None:
    """Refuse what a whole system cannot be exported as.

    Raises:
        UsageError: Another kind, a dtype or a checkpoint is asked for.
    """
    if kind not in (None, RAG):
        raise UsageError(
            f"{place}: is a RAG system, which has no {kind!r} export",
            fix=f"Leave out --to, or export its generator from its own run, such as {place / 'reader'}.",
        )
    if dtype != "auto" or checkpoint != "last":
        raise UsageError(
            f"{place}: a RAG system is exported as it answers now", fix="Leave out --dtype and --checkpoint."
        )


def verify(path: str | Path, *, base: str | Path | None = None, public_key: str | Path | None = None) -> Verification:
    """Check an export folder of any kind, or a bundle as it is; see `ftkit.pipeline.bundling.verify`."""
    return bundling.verify(path, base=base, public_key=public_key, check=verify_folder)
