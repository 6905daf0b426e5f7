"""The models of a system, copied into its export: what decides their numbers, and no pickles."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, OutputError, UsageError
from ftkit.export.base import BASE_FOLDER, find_export_base
from ftkit.export.manifest import MANIFEST, VERIFY, ExportManifest, read_manifest
from ftkit.files import inside
from ftkit.models.find import BaseModel, find_base
from ftkit.models.find_encoder import DECISIVE, EncoderFolder, encoder_sha256
from ftkit.models.licences import licence_files, stated_licence
from ftkit.models.weights import checkpoint_dtype
from ftkit.pipeline.bundling import base_files
from ftkit.pipeline.exporting import export_run
from ftkit.pipeline.proof import require_verified
from ftkit.pipeline.run_folder import RunFolder
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.exported import ENCODER, GENERATOR, QUERY_ENCODER, RERANKER

# Of a generator. Other kinds are read by other engines, which do not say how likely an answer is.
GENERATOR_KINDS = ("merged", "adapter", "nf4")


@dataclass(frozen=True, kw_only=True)
class GeneratorCopy:
    """A generator in an export.

    Attributes:
        kind: Of its own export; ``model`` for a base model as it is.
        recipe: That tuned it; empty for none.
        base: Name, revision, sha256 and licence, as manifests have them.
        dtype: Of its weights.
    """

    kind: str
    recipe: str
    base: dict[str, Any]
    dtype: str


def copy_encoders(encoders: EncoderPair, export: Path) -> bool:
    """Copy both encoders, or the one that is both.

    Returns:
        Whether questions have one of their own.
    """
    _copy_encoder(encoders.document.found, export / ENCODER)
    if encoders.query is encoders.document:
        return False
    _copy_encoder(encoders.query.found, export / QUERY_ENCODER)
    return True


def copy_reranker(found: EncoderFolder, export: Path) -> str:
    """Copy a reranker.

    Returns:
        Its name, as seen from the index.
    """
    _copy_encoder(found, export / RERANKER)
    return f"../{RERANKER}"


def _copy_encoder(found: EncoderFolder, target: Path) -> None:
    wanted = {
        path
        for pattern in (*DECISIVE, "README.md")
        for path in found.folder.rglob(pattern)
        if path.is_file() and not path.relative_to(found.folder).parts[0].startswith(".")
    }
    _copy(found.folder, wanted | set(licence_files(found.folder)), target)
    if encoder_sha256(target) != found.sha256:
        raise OutputError(f"{found.folder}: changed while it was copied", fix="Try again once nothing writes to it.")


def copy_generator(name: str, export: Path) -> GeneratorCopy:
    """Copy a generator so that nothing outside of the export is needed to load it.

    Args:
        name: A folder of a run, an export or a model; a known name, or a hub id in the cache.
        export: Gets ``generator/`` and, for an adapter, ``base/``.

    Raises:
        UsageError: It is an export of a kind that does not give likelihoods.
        VerificationError: It is an export that was never proven, or has changed since.
        ModelError: It, or an adapter's base, is not here or is another one.
    """
    place, target = Path(name), export / GENERATOR
    if RunFolder(place).is_run():
        kinds = RunFolder(place).recipe().method.EXPORT_KINDS
        export_run(place, "adapter" if "adapter" in kinds else "merged", target, quiet=True)
        (target / VERIFY).unlink()
        manifest = read_manifest(target)
    elif (place / MANIFEST).is_file():
        manifest, _ = require_verified(place)
        _require_kind(place, manifest)
        _copy(place, [place / one for one in (*manifest.files, MANIFEST)], target)
    else:
        found = find_base(name)
        _copy(found.folder, base_files(found), target)
        return GeneratorCopy(kind="model", recipe="", base=_base_facts(found), dtype=checkpoint_dtype(found.folder))
    if manifest.kind == "adapter":
        base = find_export_base(place if (place / MANIFEST).is_file() else target, manifest)
        if base.sha256 != manifest.base["sha256"]:
            raise ModelError(
                f"{base.folder}: is not the base that {name} was trained on", fix="Fetch the one that it was."
            )
        _copy(base.folder, base_files(base), export / BASE_FOLDER)
    return GeneratorCopy(kind=manifest.kind, recipe=manifest.recipe, base=manifest.base, dtype=manifest.dtype)


def _require_kind(place: Path, manifest: ExportManifest) -> None:
    if manifest.kind not in GENERATOR_KINDS:
        raise UsageError(
            f"{place}: a generator of kind {manifest.kind} cannot be held to what it answered: its engine gives no "
            "likelihoods",
            fix=f"Let the index name a {', '.join(GENERATOR_KINDS)} export or a model, and export again.",
        )


def _base_facts(base: BaseModel) -> dict[str, Any]:
    return {
        "name": base.portable_name,
        "revision": base.revision,
        "sha256": base.sha256,
        "licence": stated_licence(base),
    }


def _copy(source: Path, files: Iterable[Path], target: Path) -> None:
    """Copy files of a folder by their place in it; links are followed, as the hub's cache has them."""
    for path in sorted(files):
        copied = inside(target, path.relative_to(source).as_posix())
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
