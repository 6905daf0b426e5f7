"""The terms of what an archive carries: of the base model, of the data, and of the packages that load it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ftkit.export.manifest import ExportManifest
from ftkit.models.licences import licence_files

NOT_STATED = "not stated"
FOLDER = "licences"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Something that was trained on.

    Attributes:
        name: Without this machine's folders.
        terms: Files beside it that state where it comes from and under what terms.
    """

    name: str
    terms: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is known of the licences.

    Attributes:
        base: The base model's, as its publisher states it.
        base_files: Its licence files.
        data: The data's, in the words of whoever packs it.
        sources: What was trained on.
    """

    base: str = NOT_STATED
    base_files: tuple[Path, ...] = ()
    data: str = NOT_STATED
    sources: tuple[DataSource, ...] = field(default=())


def describe_source(path: str) -> DataSource:
    """A data source with the files beside it that state its terms.

    Args:
        path: A file, a folder, or a hub id.
    """
    place = Path(path)
    if not place.exists():
        return DataSource(name=path if path.count("/") == 1 else place.name)
    folder = place if place.is_dir() else place.parent
    notes = [
        entry for entry in sorted(folder.iterdir()) if entry.is_file() and entry.name.lower().startswith("source")
    ]
    return DataSource(name=place.name, terms=(*licence_files(folder), *notes))


def terms_files(manifest: ExportManifest, terms: Terms) -> dict[str, Path | bytes]:
    """The folder of licences, by name in the archive."""
    found: dict[str, Path | bytes] = {f"{FOLDER}/README.md": _overview(manifest, terms).encode()}
    found |= {f"{FOLDER}/base/{path.name}": path for path in terms.base_files}
    for number, source in enumerate(terms.sources, 1):
        found |= {f"{FOLDER}/data/{number}/{path.name}": path for path in source.terms}
    return found


def _overview(manifest: ExportManifest, terms: Terms) -> str:
    base_files = ", ".join(f"base/{path.name}" for path in terms.base_files) or "it came with no licence file"
    lines = [
        "# Licences", "", "## Base model", "", f"`{manifest.base['name']}`: {terms.base} ({base_files}).", "",
        "## Data", "", f"{terms.data}.", "",
    ]  # fmt: skip
    for number, source in enumerate(terms.sources, 1):
        beside = ", ".join(f"data/{number}/{path.name}" for path in source.terms)
        lines.append(
            f"- `{source.name}`: " + (f"beside it stood {beside}" if beside else "no licence file beside it")
        )
    lines += ["", "## Packages", "", "Licences of the packages that load the model are in sbom.cdx.json.", ""]
    return "\n".join(lines)
