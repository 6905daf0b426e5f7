"""Uploading an export to a hub repository, when somebody asks for it by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ftkit.cache import is_hub_offline, is_offline
from ftkit.errors import OutputError, UsageError
from ftkit.export.manifest import MANIFEST, VERIFY, ExportManifest
from ftkit.notices import log, show_notices
from ftkit.pipeline.proof import require_verified
from ftkit.units import format_bytes

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
# Files that the hub makes itself; they may stand there whatever is uploaded.
_OF_THE_HUB = {".gitattributes"}


def push(folder: str | Path, repo: str, *, public: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Upload a verified export, its card included, to a model repository.

    Says what goes where before anything is sent. A repository that does not exist is made, private unless told.

    Args:
        folder: The export.
        repo: ``owner/name``.
        public: Whether the repository may be seen by everybody.
        quiet: Show warnings only.

    Returns:
        repo, url of the commit, private, files and bytes.

    Raises:
        UsageError: The hub is closed, or that is no repository's name.
        VerificationError: The export's last verification did not pass, or its files have changed since.
        OutputError: The repository is public though nobody said so, holds other files, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    show_notices(quiet=quiet)
    place = Path(folder)
    require_repository(repo)
    manifest, _ = require_verified(place)
    names = sorted([*manifest.files, MANIFEST, VERIFY])
    size = sum((place / name).stat().st_size for name in names)
    api = HfApi()
    _announce(place, manifest, f"{api.endpoint}/{repo}", len(names), size, public=public)
    try:
        _require_fit(api, repo, set(names), public=public)
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=place,
            allow_patterns=names,
            commit_message=f"ftkit export: {manifest.kind} of {manifest.recipe} on {manifest.base['name']}",
        )
    # Its base: what the hub's HTTP client raises where there is no answer at all.
    except (HfHubHTTPError.__base__, OSError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise OutputError(
            f"{repo}: could not be uploaded: {lines[0]}",
            fix="Check the name, HF_TOKEN (it must be able to write) and HF_ENDPOINT.",
        ) from None
    return {"repo": repo, "url": str(commit.commit_url), "private": not public, "files": len(names), "bytes": size}


def require_repository(repo: str) -> None:
    """Refuse what cannot be uploaded to, before anything expensive.

    Raises:
        UsageError: The hub is closed, or that is no repository's name.
    """
    if is_hub_offline():
        closed = "FTKIT_OFFLINE" if is_offline() else "HF_HUB_OFFLINE"
        raise UsageError(f"{repo}: {closed} closes the hub, so nothing can be uploaded", fix=f"Unset {closed} first.")
    if _REPOSITORY.fullmatch(repo) is None:
        raise UsageError(f"{repo!r} is not a repository's name", fix="Give OWNER/NAME.")


def _announce(place: Path, manifest: ExportManifest, where: str, files: int, size: int, *, public: bool) -> None:
    seen = "public: everybody can see it" if public else "private"
    log.info("uploading %s (%d files, %s) to %s, %s", place, files, format_bytes(size), where, seen)
    config = place / "adapter_config.json"
    if config.is_file():
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if isinstance(base, str) and Path(base).is_absolute():
            log.warning(
                "its adapter_config.json names the base by a folder of this machine, %s; others load it with "
                "--base FOLDER (%s)", base, manifest.base["name"],
            )  # fmt: skip


def _require_fit(api: Any, repo: str, names: set[str], *, public: bool) -> None:
    """Refuse a repository that would show the export to more people than asked, or mix it with other files."""
    if not api.repo_exists(repo):
        return
    info = api.model_info(repo)
    if not info.private and not public:
        raise OutputError(f"{repo}: is a public repository", fix="Say --public if everybody may see the export.")
    if info.private and public:
        raise OutputError(f"{repo}: is a private repository", fix="Leave out --public, or make it public on the hub.")
    others = sorted({file.rfilename for file in info.siblings or ()} - names - _OF_THE_HUB)
    if others:
        # Left there they would be part of whatever is downloaded, and fail its verification.
        raise OutputError(
            f"{repo}: holds files that are not of this export: {', '.join(others[:5])}",
            fix="Choose another repository, or delete them there.",
        )
