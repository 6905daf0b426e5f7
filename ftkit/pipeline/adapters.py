"""Several adapters on one base in memory, each a target of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ftkit.errors import UsageError
from ftkit.export.manifest import MANIFEST, ExportManifest, read_manifest
from ftkit.methods.method import FIRST
from ftkit.models.tokenizer import load_tokenizer
from ftkit.pipeline.target import Target, open_adapter, open_target

ALONE = "Serve each in a process of its own, on a port of its own."


def open_targets(names: Mapping[str, str]) -> dict[str, Target]:
    """Load one target, or several adapters of one base.

    Args:
        names: What `ftkit.pipeline.target.open_target` takes, by the name that it is to have.

    Raises:
        UsageError: Several that cannot share what is in memory, with the reason.
        ModelError: As `open_target`.
    """
    if len(names) == 1:
        return {name: open_target(place) for name, place in names.items()}
    folders = {name: Path(place) for name, place in names.items()}
    manifests = {name: _manifest(folder) for name, folder in folders.items()}
    first = next(iter(names))
    for name in names:
        _require_alike(folders[first], manifests[first], folders[name], manifests[name])
    target, method = open_adapter(folders[first], manifests[first])
    if not method.shares_base:
        raise UsageError(
            f"{folders[first]}: a {manifests[first].recipe} adapter cannot share its base with others in one process",
            fix=ALONE,
        )
    targets = {}
    for index, (name, folder) in enumerate(folders.items()):
        # PEFT makes modules of these names, which must not have dots.
        adapter = FIRST if index == 0 else f"adapter{index}"
        if index > 0:
            method.load_beside(target.model, folder, adapter)
        targets[name] = replace(
            target,
            tokenizer=load_tokenizer(folder),
            stop_token_ids=manifests[name].stop_tokens,
            choose=functools.partial(method.choose, target.model, adapter),
        )
    target.model.eval()
    return targets


def _manifest(folder: Path) -> ExportManifest:
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder}: is not an export; several can be served together only if they are adapters of one base",
            fix=ALONE,
        )
    manifest = read_manifest(folder)
    if manifest.kind != "adapter":
        raise UsageError(
            f"{folder}: is a {manifest.kind} export; several can be served together only if they are adapters of one "
            "base",
            fix=ALONE,
        )
    return manifest


def _require_alike(first: Path, ours: ExportManifest, other: Path, theirs: ExportManifest) -> None:
    """Refuse two adapters that want different things in memory."""
    wants = {
        "base weights": (ours.base["sha256"], theirs.base["sha256"]),
        "quantization of the base": (ours.quantization, theirs.quantization),
        "method": (ours.recipe, theirs.recipe),
        "tokens added to the vocabulary": (ours.added_tokens, theirs.added_tokens),
    }
    for what, (one, two) in wants.items():
        if one != two:
            raise UsageError(f"{other}: {what}: {_short(two)}, but {first} has {_short(one)}", fix=ALONE)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
