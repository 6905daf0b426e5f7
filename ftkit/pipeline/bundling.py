"""One archive for a machine without a network: packed from a run or an export, unpacked, and verified as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, OutputError, UsageError
from ftkit.export.archive import Archive, Content, compression_of, write_archive
from ftkit.export.base import BASE_FOLDER, find_export_base
from ftkit.export.checks import Check
from ftkit.export.licensing import NOT_STATED, Terms, describe_source, terms_files
from ftkit.export.manifest import MANIFEST, WHOLE, ExportManifest, read_manifest
from ftkit.export.run_guide import MODEL_FOLDER, run_guide
from ftkit.export.sbom import make_sbom
from ftkit.export.signing import require_signed, require_signing, sign, signature_of
from ftkit.export.targets import TARGETS
from ftkit.export.unpack import unpack
from ftkit.export.verify import Verification, verify_export
from ftkit.export.write import BASE_LICENCE
from ftkit.files import new_folder, require_empty, to_json
from ftkit.models.find import HUB_PATTERNS, BaseModel
from ftkit.models.licences import licence_files, stated_licence
from ftkit.notices import log, show_notices
from ftkit.pipeline.exporting import export_run
from ftkit.pipeline.proof import require_verified
from ftkit.pipeline.run_folder import RunFolder
from ftkit.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How a bundle is to be packed.

    Attributes:
        with_base: Whether the base model's files go in; None: where the export needs them.
        base: Folder with the base model; None to look for it.
        data_licence: The training data's terms in words; None where nobody stated them.
        key: Private key to sign with.
    """

    with_base: bool | None = None
    base: Path | None = None
    data_licence: str | None = None
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle that was written.

    Attributes:
        archive: The file.
        signature: Beside it; None without.
    """

    archive: Archive
    signature: Path | None

    def to_dict(self) -> dict[str, Any]:
        """As ``ftkit export --bundle --json`` prints it."""
        about = {key: value for key, value in self.archive.index.items() if key != "files"}
        return {
            "path": str(self.archive.path),
            "bytes": self.archive.size,
            "sha256": self.archive.sha256,
            "signature": None if self.signature is None else str(self.signature),
            **about,
            "files": len(self.archive.index["files"]),
        }


def bundle(
    source: str | Path,
    file: str | Path,
    *,
    kind: str | None = None,
    dtype: str = "auto",
    packing: Packing | None = None,
    quiet: bool = False,
) -> Bundle:
    """Write one archive with a verified export and all that a machine without a network needs beside it.

    Args:
        source: An export folder; or a finished run, of which ``kind`` is then exported and verified first.
        file: A new file; ``.tar``, ``.tar.gz`` or ``.tar.zst``.
        kind: Of the export, for runs.
        dtype: Of the stored weights, for runs.
        packing: What goes in.
        quiet: Show warnings only.

    Raises:
        UsageError: An argument does not fit the others.
        OutputError: The file exists.
        VerificationError: The export's last verification did not pass, or its files have changed since.
        ModelError: The base that the export needs is not here, or is another one.
        MissingPartError: Signing needs a package that is not installed.
    """
    show_notices(quiet=quiet)
    place, target, how = Path(source), Path(file), packing or Packing()
    compression_of(target)
    for new in [target] + ([signature_of(target)] if how.key else []):
        if new.exists():
            raise OutputError(f"{new}: exists already", fix="Choose another output, or delete it.")
    if how.key is not None:
        require_signing(how.key)
    with _export_of(place, target, kind, dtype=dtype, quiet=quiet) as (export, run):
        archive = _pack(export, run, target, how)
    log.info("%s: %s, SHA-256 %s", target, format_bytes(archive.size), archive.sha256)
    return Bundle(archive=archive, signature=None if how.key is None else sign(target, how.key))


@contextmanager
def _export_of(
    place: Path, file: Path, kind: str | None, *, dtype: str, quiet: bool
) -> Iterator[tuple[Path, RunFolder | None]]:
    """The export to pack, and its run where that is known."""
    if RunFolder(place).is_run():
        if kind is None:
            raise UsageError(f"{place}: is a run", fix="Say what to export with --to KIND, or name an export folder.")
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".ftkit-bundle-") as scratch:
            export_run(place, kind, Path(scratch) / MODEL_FOLDER, dtype=dtype, quiet=quiet)
            yield Path(scratch) / MODEL_FOLDER, RunFolder(place)
        return
    if not (place / MANIFEST).is_file():
        raise UsageError(f"{place}: is neither a run nor an export", fix="Name a folder that ftkit wrote.")
    manifest = read_manifest(place)
    if kind not in (None, manifest.kind) or dtype not in ("auto", manifest.dtype):
        raise UsageError(
            f"{place}: is an export already, {manifest.kind} in {manifest.dtype}", fix="Leave out --to and --dtype."
        )
    parent = place.resolve().parent
    run = RunFolder(parent.parent)
    yield place, run if parent.name == "export" and run.is_run() else None


def _pack(export: Path, run: RunFolder | None, file: Path, how: Packing) -> Archive:
    """Gather everything by its name in the archive, and write it."""
    manifest, proof = require_verified(export)
    needs_base = manifest.kind not in WHOLE and TARGETS[manifest.kind].on_base  # a whole system holds its base
    if how.with_base and not needs_base:
        raise UsageError(f"{manifest.kind} exports need no base model", fix="Leave out --with-base.")
    base = _base_to_pack(export, manifest, how) if needs_base and how.with_base is not False else None
    terms = _terms(export, manifest, base, run, how.data_licence)
    guide = run_guide(manifest, needs_base=needs_base, has_base=base is not None)
    content: dict[str, Content] = {
        **{f"{MODEL_FOLDER}/{name}": export / name for name in (*manifest.files, MANIFEST)},
        **({} if base is None else {f"{BASE_FOLDER}/{path.name}": path for path in base_files(base)}),
        **terms_files(manifest, terms),
        "run.md": guide.encode(),
        "sbom.cdx.json": to_json(make_sbom(manifest, terms)).encode(),
    }
    about = {
        "kind": manifest.kind,
        "recipe": manifest.recipe,
        "base": manifest.base,
        "has_base": base is not None,
        "base_licence": terms.base,
        "data_licence": terms.data,
        # Not verify.json itself: it holds the figures of whichever machine looked last.
        "passed": sorted(check["name"] for check in proof["checks"]),
    }
    return write_archive(content, about, file)


def _base_to_pack(export: Path, manifest: ExportManifest, how: Packing) -> BaseModel:
    base = find_export_base(export, manifest, how.base)
    if base.sha256 != manifest.base["sha256"]:
        raise ModelError(
            f"{base.folder}: is not the base that {export} was trained on (SHA-256 {base.sha256[:16]}…, not "
            f"{manifest.base['sha256'][:16]}…)",
            fix="Name the right folder with --base FOLDER.",
        )
    return base


def base_files(base: BaseModel) -> list[Path]:
    """What a text model needs of a folder that may hold anything; links are followed, as the hub's cache has them."""
    found = {path for pattern in HUB_PATTERNS for path in base.folder.glob(pattern) if path.is_file()}
    return sorted(found | set(licence_files(base.folder)))


def _terms(
    export: Path, manifest: ExportManifest, base: BaseModel | None, run: RunFolder | None, data_licence: str | None
) -> Terms:
    stated = manifest.base.get("licence")
    if stated is None and base is not None:
        # Where the base stands is not its name; that is what the table of known models goes by.
        stated = stated_licence(replace(base, name=manifest.base["name"]))
    files = [] if base is None else licence_files(base.folder)
    if not files and (export / BASE_LICENCE).is_file():
        files = [export / BASE_LICENCE]
    if data_licence is None:
        log.info("the data's licence is not stated; --data-licence TEXT states it")
    return Terms(
        base=stated or NOT_STATED,
        base_files=tuple(files),
        data=data_licence or NOT_STATED,
        sources=() if run is None else tuple(describe_source(path) for path in _data_paths(run)),
    )


def _data_paths(run: RunFolder) -> list[str]:
    data = run.recipe().data
    paths = [source.path for source in data.train]
    paths += [data.validation] if isinstance(data.validation, str) else []
    return paths + ([] if data.replay is None else [data.replay.path])


def unbundle(file: str | Path, folder: str | Path, *, public_key: str | Path | None = None) -> dict[str, Any]:
    """Unpack a bundle into a new folder, which appears complete or not at all.

    Args:
        file: The bundle.
        folder: Absent or empty.
        public_key: Of its signer; None not to check a signature.

    Returns:
        The content of its ``BUNDLE.json``.

    Raises:
        OutputError: The folder is in use.
        VerificationError: It is no bundle, damaged, hostile, or not signed by this key.
    """
    archive, target = Path(file), Path(folder)
    require_empty(target)
    if public_key is not None:
        require_signed(archive, Path(public_key))
    with new_folder(target) as partial:
        return unpack(archive, partial)


def verify(
    path: str | Path,
    *,
    base: str | Path | None = None,
    public_key: str | Path | None = None,
    check: Callable[..., Verification] = verify_export,
) -> Verification:
    """Check an export folder, or a bundle as it is, in a temporary folder.

    Args:
        path: An export folder, or a bundle's file.
        base: Folder with an adapter's base model; None to look for it, in a bundle first.
        public_key: Of a bundle's signer; None not to check a signature.
        check: Checks one folder, as `ftkit.export.verify.verify_export` does with the kinds that it knows.

    Raises:
        UsageError: There is no such file, or a key is given for a folder.
        VerificationError: There is no readable manifest; or it is no bundle, damaged, hostile, or not signed so.
        ModelError: An adapter's base model is not to be found.
    """
    place, named = Path(path), None if base is None else Path(base)
    if not place.is_file():
        if public_key is not None:
            raise UsageError(f"{place}: only bundles are signed", fix="Name the file, or leave out --public-key.")
        return check(place, base=named)
    signed = [] if public_key is None else [Check(name="signature", passed=True, detail=f"by {public_key}")]
    if public_key is not None:
        require_signed(place, Path(public_key))
    elif signature_of(place).is_file():
        log.info("%s is signed; --public-key KEY checks that", place)
    with tempfile.TemporaryDirectory(prefix="ftkit-bundle-") as scratch:
        index = unpack(place, Path(scratch))
        outcome = check(Path(scratch) / MODEL_FOLDER, base=named)
    unpacked = Check(name="bundle", passed=True, value=len(index["files"]))
    return replace(outcome, checks=(*signed, unpacked, *outcome.checks))
