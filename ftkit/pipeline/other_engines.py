"""Exports that transformers does not read: which engine does, and how it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ftkit.errors import MissingPartError, UsageError
from ftkit.export.manifest import RAG, WHOLE, ExportManifest


@dataclass(frozen=True, kw_only=True)
class OtherEngine:
    """Who reads a kind of export.

    Attributes:
        name: Of the engine.
        suffix: Of the artefact's file.
        commands: To answer or to serve, with ``{folder}`` and ``{file}`` to be filled in.
    """

    name: str
    suffix: str
    commands: tuple[str, ...]


OTHER_ENGINES: Mapping[str, OtherEngine] = {
    "gguf": OtherEngine(
        name="llama.cpp",
        suffix=".gguf",
        commands=(
            "llama-server --model {file} --jinja",
            "ftkit serve {folder} --engine llama-cpp, which starts that",
            "pip install llama-cpp-python, and ftkit itself asks llama.cpp",
        ),
    ),
    "gguf-adapter": OtherEngine(
        name="llama.cpp",
        suffix=".gguf",
        commands=("llama-server --model BASE.gguf --lora {file} --jinja, with the base model as GGUF",),
    ),
    "onnx": OtherEngine(
        name="ONNX Runtime GenAI",
        suffix=".onnx",
        commands=("pip install onnxruntime-genai, and in Python: onnxruntime_genai.Model('{folder}')",),
    ),
}


def artefact_of(folder: Path, manifest: ExportManifest) -> Path:
    """The file of an export that its engine is given; the folder itself where there is no such file.

    Several files that go together are named after their first, as llama.cpp wants it.
    """
    engine = OTHER_ENGINES[manifest.kind]
    files = sorted(name for name in manifest.files if name.endswith(engine.suffix))
    return folder / files[0] if files else folder


def refuse_other_engine(folder: Path, manifest: ExportManifest) -> NoReturn:
    """Say who reads this export.

    Raises:
        MissingPartError: An engine that is not transformers; with its command.
        UsageError: Nobody that is known here.
    """
    if manifest.kind in WHOLE:
        raise UsageError(
            f"{folder}: is a whole {'RAG' if manifest.kind == RAG else manifest.kind} system, asked as one",
            fix=f"Ask it with `ftkit rag ask {folder} --question TEXT`, or serve it with `ftkit serve {folder}`.",
        )
    if manifest.kind not in OTHER_ENGINES:
        raise UsageError(
            f"{folder}: exports of kind {manifest.kind!r} cannot be loaded here", fix="Use a matching ftkit."
        )
    engine = OTHER_ENGINES[manifest.kind]
    file = artefact_of(folder, manifest)
    lines = [command.format(folder=folder, file=file) for command in engine.commands]
    raise MissingPartError(
        f"{folder}: is an export to {manifest.kind}, which {engine.name} reads and transformers does not",
        fix="\n".join(
            [
                "Let that engine answer:",
                *(f"  {line}" for line in lines),
                "Or name the run itself, or its merged or adapter export.",
            ]
        ),
    )
