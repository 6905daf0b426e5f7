"""A software bill of materials in CycloneDX 1.6: what an export is made of, and the packages that load it.

Plain JSON: what is said here is a few dozen lines of the format, and so an archive can be written with what ftkit
needs anyway. The tests hold it to the published schema.
"""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ftkit.export.licensing import NOT_STATED, Terms
from ftkit.export.manifest import WHOLE, ExportManifest
from ftkit.export.targets import TARGETS
from ftkit.files import sha256_json
from ftkit.methods import ADAPTER_LOADERS

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Identifiers of the SPDX list, as publishers of models use them; any other is passed on as a name.
_SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0", "GPL-3.0-only", "MPL-2.0",
    )
}  # fmt: skip
MAX_LICENCE_NAME = 100
RAG_LOADS_WITH = ("ftkit", "torch", "transformers", "sentence-transformers", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Package:
    """An installed package.

    Attributes:
        name: Canonical.
        version: Installed.
        licences: As CycloneDX writes them.
        requires: Canonical names of what it needs in turn.
    """

    name: str
    version: str
    licences: list[dict[str, Any]]
    requires: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{quote(self.version, safe='')}"


def make_sbom(manifest: ExportManifest, terms: Terms) -> dict[str, Any]:
    """Describe an export.

    Args:
        manifest: Of the export.
        terms: Licences of base and data.

    Returns:
        The document; the same for the same export, terms and environment, so it has no time.
    """
    roots = loading_packages(manifest)
    packages = installed_closure(roots)
    main = _model(manifest)
    base, data = _base(manifest, terms), _data(manifest, terms)
    top = [packages[name].reference for name in roots if name in packages]
    graph = [{"ref": main["bom-ref"], "dependsOn": sorted([base["bom-ref"], data["bom-ref"], *top])}]
    graph += [{"ref": "base-model"}, {"ref": "training-data"}]
    graph += [
        {
            "ref": package.reference,
            "dependsOn": sorted(packages[name].reference for name in package.requires if name in packages),
        }
        for package in packages.values()
    ]
    body = {
        "metadata": {"component": main},
        "components": [base, data, *(_library(package) for package in packages.values())],
        "dependencies": graph,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, sha256_json(body))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **body,
    }


def loading_packages(manifest: ExportManifest) -> list[str]:
    """What it takes to load an export, without what these need in turn."""
    needed = list(RAG_LOADS_WITH if manifest.kind in WHOLE else TARGETS[manifest.kind].loads_with)
    if manifest.recipe in ADAPTER_LOADERS and "peft" in needed:
        needed[needed.index("peft")] = "ftkit"  # PEFT has no format for it
    if manifest.quantization is not None:
        needed.append("bitsandbytes")
    return [canonicalize_name(name) for name in needed]


def installed_closure(roots: Iterable[str]) -> dict[str, Package]:
    """These packages and all that they need, as they are installed here, by name in order."""
    found: dict[str, Package] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        requires = tuple(sorted(_requirements(distribution)))
        licences = _licences(distribution.metadata)
        found[name] = Package(name=name, version=distribution.version, licences=licences, requires=requires)
        todo += requires
    return dict(sorted(found.items()))


def _requirements(distribution: importlib.metadata.Distribution) -> set[str]:
    names = set()
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.add(str(canonicalize_name(requirement.name)))
    return names


def _licences(metadata: Any) -> list[dict[str, Any]]:
    """As the package states them: an SPDX expression, a short name, or classifiers."""
    if expression := metadata.get("License-Expression"):
        return [{"expression": expression}]
    text = (metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= MAX_LICENCE_NAME and text.upper() != "UNKNOWN":
        return [_licence(text)]
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    names = dict.fromkeys(line.rpartition(" :: ")[2] for line in classifiers)
    return [_licence(name) for name in names]


def _licence(text: str) -> dict[str, Any]:
    known = _SPDX.get(text.lower())
    return {"license": {"name": text} if known is None else {"id": known}}


def _model(manifest: ExportManifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": f"{manifest.base['name']} tuned with {manifest.recipe} ({manifest.kind})",
        "version": sha256_json(manifest.files)[:16],
        "hashes": [{"alg": "SHA-256", "content": sha256_json(manifest.to_dict())}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-generation",
                "datasets": [{"ref": "training-data"}],
            }
        },
        "properties": _properties(
            {
                "hash_of": "manifest.json in canonical form, which lists every file with its SHA-256",
                "recipe_digest": manifest.recipe_digest,
                **{f"written_with:{name}": version for name, version in manifest.versions.items()},
            }
        ),
    }


def _base(manifest: ExportManifest, terms: Terms) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "base-model",
        "name": manifest.base["name"],
        **({"version": manifest.base["revision"]} if manifest.base["revision"] else {}),
        "hashes": _hash(manifest.base["sha256"]),
        "properties": _properties(
            {"hash_of": "its safetensors file; of several, the JSON object of their names and SHA-256"}
        ),
    }
    return component | ({} if terms.base == NOT_STATED else {"licenses": [_licence(terms.base)]})


def _data(manifest: ExportManifest, terms: Terms) -> dict[str, Any]:
    licensed = {} if terms.data == NOT_STATED else {"licenses": [_licence(terms.data)]}
    parts = [
        {"type": "data", "bom-ref": f"training-data-{number}", "name": source.name}
        for number, source in enumerate(terms.sources, 1)
    ]
    return {
        "type": "data",
        "bom-ref": "training-data",
        "name": "training data",
        "hashes": _hash(manifest.data_digest),
        **licensed,
        "data": [{"type": "dataset", "name": "training data"}],
        **({"components": parts} if parts else {}),
        "properties": _properties({"hash_of": "the token ids and labels that were trained and validated on"}),
    }


def _library(package: Package) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": package.reference,
        "name": package.name,
        "version": package.version,
        **({"licenses": package.licences} if package.licences else {}),
        "purl": package.reference,
    }


def _hash(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}] if _SHA256.fullmatch(digest) else []


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"ftkit:{name}", "value": value} for name, value in values.items()]
