"""Under what terms a model may be passed on: its licence files, and what its publisher states."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ftkit.models.find import BaseModel
from ftkit.models.known import KNOWN_MODELS

CARD = "README.md"
MAX_CARD_BYTES = 1 << 20
_BEGINNINGS = ("license", "licence", "copying", "notice", "use_policy")


def licence_files(folder: Path) -> list[Path]:
    """Files of a folder that state terms, the licence itself before notices."""
    if not folder.is_dir():
        return []
    found = [
        path for path in folder.iterdir() if path.name.lower().startswith(_BEGINNINGS) and path.is_file()
    ]  # fmt: skip

    def rank(path: Path) -> tuple[int, str]:
        name = path.name.lower()
        return next(place for place, beginning in enumerate(_BEGINNINGS) if name.startswith(beginning)), path.name

    return sorted(found, key=rank)


def stated_licence(base: BaseModel) -> str | None:
    """What the table of known models or the model's own card says; None where neither does."""
    if base.name in KNOWN_MODELS:
        return KNOWN_MODELS[base.name].licence
    card = _card_header(base.folder / CARD)
    # The hub's cards say "other" and give the name beside it.
    named = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return named if isinstance(named, str) and named else None


def _card_header(path: Path) -> dict[str, object]:
    """The YAML between the two lines of dashes at a card's beginning."""
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            return {}
        text = path.read_text(encoding="utf-8")
        _, dashes, rest = text.partition("---\n")
        header, closing, _ = rest.partition("\n---")
        values = YAML(typ="safe").load(header) if dashes and closing and text.startswith("---\n") else None
    except (OSError, ValueError, YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
