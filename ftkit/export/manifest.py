"""manifest.json: what an export consists of and where it comes from."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from ftkit.errors import Problem, VerificationError
from ftkit.files import files_in, inside, sha256_file
from ftkit.recipe.sections import ExportKind

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
VERIFY = "verify.json"
# A whole answering system. It is no target of a run; `ftkit.rag` writes and verifies it.
RAG = "rag"
# Several systems that answer as one. `ftkit.hybrid` writes and verifies it.
HYBRID = "hybrid"
WHOLE = (RAG, HYBRID)
# The hub adds the one to every repository and its client the other to every download; no loader reads them.
HUB_FILES = (".gitattributes", ".cache/huggingface/*")


@dataclass(frozen=True, kw_only=True)
class ExportManifest:
    """The fields of manifest.json; `ftkit verify` trusts nothing but these and the bytes on disk.

    Attributes:
        kind: Of the export; a key of `ftkit.export.targets.TARGETS`, `RAG` or `HYBRID`.
        recipe: Name of the recipe's method.
        method: Its settings.
        base: Name, revision, sha256 of the weights and licence (None where none is stated) of the base model.
        recipe_digest: Of the resolved recipe.
        data_digest: Of the token ids and labels that were trained and validated on.
        tokenizer_digest: Of the tokenizer's serialised form.
        chat_template_digest: Of the chat template's text; None without one.
        dtype: Of the exported weights.
        quantization: Arguments of BitsAndBytesConfig that the base must be loaded with; None for none.
        stop_tokens: Ids that end an answer.
        added_tokens: Ids that the base's vocabulary does not have.
        prefix_ids: Those of them that tokenizer and template put in front of every text, BOS included: a soft prompt.
        chat_template_kwargs: Defaults of template variables, which stand in the exported template itself.
        token_contract_digest: Of what token_contract.json says; None in exports that have none.
        notes: What the target records beside, such as how a merge was chosen.
        files: Size and sha256 by path, every file but manifest.json and verify.json.
        versions: Of the libraries that wrote it.
    """

    kind: str
    recipe: str
    method: dict[str, Any]
    base: dict[str, Any]
    recipe_digest: str
    data_digest: str
    tokenizer_digest: str
    chat_template_digest: str | None
    dtype: str
    quantization: dict[str, Any] | None
    stop_tokens: list[int]
    added_tokens: list[int] = field(default_factory=list)
    prefix_ids: list[int] = field(default_factory=list)
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    token_contract_digest: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """As written to manifest.json."""
        return asdict(self)


# Its fields were written by whoever made the export.
_FORM = TypeAdapter(ExportManifest)


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file of an export."""
    return {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in files_in(folder)
        if name not in (MANIFEST, VERIFY)
    }


def read_manifest(folder: Path) -> ExportManifest:
    """Read and check the form of a manifest.

    Raises:
        VerificationError: Missing, unreadable, of another format, or naming files outside its folder.
    """
    path = folder / MANIFEST
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise VerificationError(f"{path}: is not a file", fix="Name an export folder.")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
    except FileNotFoundError:
        raise VerificationError(
            f"{folder}: has no {MANIFEST}, so it is not a complete ftkit export", fix="Name an export folder."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise VerificationError(f"{path}: cannot be read: {error}", fix="Export again.") from None
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        raise VerificationError(f"{path}: is of another format than {FORMAT_VERSION}", fix="Use a matching ftkit.")
    try:
        manifest = ExportManifest(**values)
        _FORM.validate_json(text, strict=True)
        if manifest.kind not in (*get_args(ExportKind), RAG, HYBRID):
            raise ValueError(f"{manifest.kind!r} is no kind of export that this ftkit knows")
        if not all(isinstance(manifest.base.get(key), str) for key in ("name", "sha256")):
            raise ValueError("base: has no name and sha256")
        for name, facts in manifest.files.items():
            if type(facts.get("size")) is not int or not isinstance(facts.get("sha256"), str):
                raise ValueError(f"files: {name!r} has no size and sha256")
            inside(folder, name)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise VerificationError(
            f"{path}: is not a valid manifest: {where}: {fault['msg']}", fix="Export again."
        ) from None
    except (TypeError, ValueError, OSError) as error:
        raise VerificationError(f"{path}: is not a valid manifest: {error}", fix="Export again.") from None
    return manifest


def file_problems(folder: Path, manifest: ExportManifest) -> list[Problem]:
    """Files that are missing, changed, or were never part of the export."""
    problems = []
    for name, facts in manifest.files.items():
        path = inside(folder, name)
        if not path.is_file():
            problems.append(Problem(where=name, what="is missing"))
        elif path.stat().st_size != facts["size"]:
            problems.append(Problem(where=name, what=f"has {path.stat().st_size} bytes, not {facts['size']}"))
        elif sha256_file(path) != facts["sha256"]:
            problems.append(Problem(where=name, what="has other bytes than were exported"))
    extra = set(files_in(folder)) - set(manifest.files) - {MANIFEST, VERIFY}
    strange = sorted(name for name in extra if not any(fnmatchcase(name, pattern) for pattern in HUB_FILES))
    return problems + [Problem(where=name, what="was not exported by ftkit") for name in strange]


def library_versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = [
        "ftkit",
        "torch",
        "transformers",
        "peft",
        "bitsandbytes",
        "tokenizers",
        "safetensors",
        "llama-cpp-python",
    ]
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
