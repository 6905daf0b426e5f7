"""The base model of an adapter's export, found."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, VerificationError
from ftkit.export.manifest import ExportManifest
from ftkit.models.find import BaseModel, find_base

# Beside an export, the base model that it works on.
BASE_FOLDER = "base"


def find_export_base(folder: Path, manifest: ExportManifest, base: Path | None = None) -> BaseModel:
    """The base model of an adapter.

    The folder that is named, and no other; else ``base`` beside the export, as bundles have it, if its digest is the
    base's; else where it was on the machine that wrote the export; else by its portable name.

    Raises:
        ModelError: It is in none of these places.
    """
    if base is not None:
        return find_base(str(base.resolve()))
    beside = folder.resolve().parent / BASE_FOLDER
    with contextlib.suppress(ModelError):  # some other folder that happens to have the name
        if beside.is_dir() and (found := find_base(str(beside))).sha256 == manifest.base["sha256"]:
            return found
    config: Any = manifest.notes  # of adapters that are not PEFT's
    if manifest.kind == "adapter":
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise VerificationError(
                f"{folder}: adapter_config.json cannot be read: {error}", fix="Export again."
            ) from None
    written = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    name = manifest.base["name"]
    # A stranger may have chosen either name; only the manifest's, which is held to a digest, may be asked of the hub.
    if isinstance(written, str) and written != name and os.path.isdir(written):  # noqa: PTH112 - may be too long
        with contextlib.suppress(ModelError):
            return find_base(written)
    with contextlib.suppress(ModelError):
        return find_base(name, manifest.base.get("revision"))
    raise ModelError(
        f"{folder}: its base model {manifest.base['name']} (SHA-256 {manifest.base['sha256'][:16]}…) is not here",
        fix="Name its folder with --base FOLDER, or fetch it (`ftkit models pull NAME`).",
    )
