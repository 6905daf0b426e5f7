"""From what a recipe says to a checked folder with a base model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.cache import cache_folder, is_hub_offline, is_offline
from ftkit.errors import ModelError
from ftkit.files import waiting_lock
from ftkit.models.cache import weights_sha256
from ftkit.models.gguf import fetch_known, revision_of
from ftkit.models.known import KNOWN_MODELS, KnownModel
from ftkit.models.weights import check_model_folder
from ftkit.nearest import did_you_mean
from ftkit.notices import log
from ftkit.units import format_bytes

# What a text model needs, and nothing that could be code or a pickle.
HUB_PATTERNS = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
    "README.md",
)


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A base model on this machine.

    Attributes:
        name: As the recipe names it: known name, hub id, or folder.
        revision: Of a known name or hub id.
        folder: Where its files are.
        sha256: Identity of its weights, the same on every machine.
        config: Its parsed ``config.json``.
    """

    name: str
    revision: str | None
    folder: Path
    sha256: str
    config: dict[str, Any] = field(repr=False)

    @property
    def portable_name(self) -> str:
        """The name without this machine's folders."""
        return self.folder.name if Path(self.name).is_absolute() else self.name

    @property
    def peft_name(self) -> str:
        """What plain PEFT on this machine can load: the hub id, else the local folder."""
        is_hub_id = self.name not in KNOWN_MODELS and not Path(self.name).exists()
        return self.name if is_hub_id else str(self.folder)


def known_folder(model: KnownModel) -> Path:
    """Where a known model stands once fetched; the source's digest is part of the place."""
    return cache_folder() / "models" / f"{model.name}-{model.member_sha256[:12]}"


def find_base(path: str, revision: str | None = None) -> BaseModel:
    """Find, fetch if it is allowed and needed, and check a base model.

    Args:
        path: A folder, a hub id, or a known name.
        revision: Branch, tag or commit of a hub id.

    Raises:
        ModelError: It is nowhere, cannot be fetched, or cannot be used.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long to be one
        folder, revision = Path(path).resolve(), None
    elif path in KNOWN_MODELS:
        folder, revision = _known(KNOWN_MODELS[path]), revision_of(KNOWN_MODELS[path])
    elif path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(
            f"{path}: no such folder, and not a known model",
            fix=did_you_mean(path, KNOWN_MODELS, what="Known models"),
        )
    else:
        folder, revision = fetch_from_hub(path, revision)
    config = check_model_folder(folder)
    return BaseModel(name=path, revision=revision, folder=folder, sha256=weights_sha256(folder), config=config)


def _known(model: KnownModel) -> Path:
    folder = known_folder(model)
    return fetched_once(model.name, folder, lambda: fetch_known(model, folder), lambda: _is_as_recorded(folder))


def _is_as_recorded(folder: Path) -> bool:
    """Whether a known model's weights are those that dequantising wrote, by the digest beside them."""
    try:
        recorded = json.loads((folder / "ftkit_model.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = None
    return bool(weights_sha256(folder) == recorded)


def fetched_once(name: str, folder: Path, fetch: Callable[[], None], is_whole: Callable[[], bool]) -> Path:
    """The folder of a known model or encoder, fetched if it is not there.

    Args:
        name: That it is known by.
        folder: Where it stands.
        fetch: Makes the folder, complete or not at all.
        is_whole: Whether what stands there is what was fetched.

    Raises:
        ModelError: It may not be fetched, or was altered since.
    """
    if not folder.is_dir():
        if is_offline():
            raise ModelError(
                f"{name} is not in {folder.parent}, and FTKIT_OFFLINE forbids fetching it",
                fix=f"Run `ftkit models pull {name}` without FTKIT_OFFLINE, or copy the folder from elsewhere.",
            )
        # Two processes may want it at once; the second finds what the first has fetched.
        with waiting_lock(folder.parent / f".{name}.lock"):
            if not folder.is_dir():
                fetch()
    if not is_whole():
        raise ModelError(
            f"{folder}: its weights are not the ones that were written there (SHA-256 differs)",
            fix="Delete that folder; the next run fetches it again.",
        )
    return folder


def fetch_from_hub(path: str, revision: str | None, *, cached_only: bool = False) -> tuple[Path, str]:
    """A hub repository's folder in the hub's own cache, and the commit that it is.

    Args:
        path: The repository.
        revision: Branch, tag or commit.
        cached_only: Nothing is fetched, as for names that a file gives and nobody typed.

    Raises:
        ModelError: It is not there, or the hub is closed and it was never fetched.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    closed = cached_only or is_hub_offline()
    try:
        if not closed:
            size = _hub_bytes(HfApi().model_info(path, revision=revision, files_metadata=True).siblings or [])
            log.info("fetching %s from the hub (at most %s; what is cached is kept)", path, format_bytes(size))
        folder = Path(
            snapshot_download(path, revision=revision, allow_patterns=list(HUB_PATTERNS), local_files_only=closed)
        )
    except RepositoryNotFoundError:
        raise ModelError(f"{path}: the hub has no such model, or you may not see it", fix=_hub_fix(path)) from None
    except LocalEntryNotFoundError:
        if cached_only and not is_hub_offline():
            raise ModelError(
                f"{path}: is not on this machine, and a file that names it is not asking for it",
                fix=f"If you want it, run: ftkit models pull {path}",
            ) from None
        raise ModelError(
            f"{path}: no such folder, and not in the hub's cache while the hub is closed or out of reach",
            fix=_hub_fix(path),
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: could not be fetched from the hub: {first}", fix=_hub_fix(path)) from None
    return folder, folder.name


def _hub_bytes(siblings: Sequence[Any]) -> int:
    return sum(file.size or 0 for file in siblings if Path(file.rfilename).match("*.safetensors"))


def _hub_fix(path: str) -> str:
    return (
        f"{did_you_mean(path, KNOWN_MODELS, what='Known models')}\n"
        "Otherwise check the spelling, HF_HUB_OFFLINE, FTKIT_OFFLINE, HF_ENDPOINT (a mirror) and HF_TOKEN."
    )
