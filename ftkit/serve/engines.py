"""Existing engines' own servers: which exports they take, and the command that starts each."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.errors import MissingPartError, ModelError, UsageError
from ftkit.export.base import find_export_base
from ftkit.export.engines import not_for_vllm, vllm_rank
from ftkit.export.manifest import MANIFEST, read_manifest
from ftkit.hybrid.opening import is_hybrid_place
from ftkit.nearest import did_you_mean
from ftkit.pipeline.gguf_model import can_read_gguf
from ftkit.pipeline.other_engines import OTHER_ENGINES, artefact_of
from ftkit.rag.opening import is_rag_place
from ftkit.serve.listen import Address

OWN = "ftkit"


@dataclass(frozen=True, kw_only=True)
class Command:
    """How an engine is started.

    Attributes:
        argv: Program and arguments.
        env: Variables beside this process's own; keys stand here, as everybody on a machine can read arguments.
        names: Of the models, as clients use them.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()


def choose_engine(wanted: str, names: Mapping[str, str]) -> str:
    """The engine that serves these models.

    ``auto`` is ftkit's own server, which takes all that transformers can compute: transformers' own server takes no
    adapters, ignores temperatures where the checkpoint says greedy, and has no list of models without a hub cache.
    GGUF is llama.cpp's: its own server's where that is installed.

    Raises:
        UsageError: There is no such engine, or it cannot answer from an index.
    """
    known = (OWN, *ENGINES)
    if wanted not in ("auto", *known):
        raise UsageError(
            f"--engine {wanted}: is unknown", fix=did_you_mean(wanted, ("auto", *known), what="There is")
        )
    documents = [place for place in names.values() if is_rag_place(place) or is_hybrid_place(place)]
    if documents and wanted not in ("auto", OWN):
        raise UsageError(
            f"--engine {wanted}: {documents[0]} answers from documents, which only ftkit's own server can do",
            fix="Leave out --engine.",
        )
    if documents:
        return OWN
    if wanted != "auto":
        return wanted
    kinds = {_kind(place) for place in names.values()}
    is_export = all(Path(place).is_dir() for place in names.values())
    if kinds == {"gguf"} and not (is_export and can_read_gguf() and shutil.which("llama-server") is None):
        return "llama-cpp"
    return OWN


def require_own_parts() -> None:
    """Refuse to start without what ftkit's own server is made of.

    Raises:
        MissingPartError: With the command that installs it.
    """
    missing = [package for package in ("fastapi", "uvicorn") if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPartError(
            f"serving needs {' and '.join(missing)}, which is not installed", fix="Run: pip install 'ftkit[serve]'"
        )


def engine_command(engine: str, names: Mapping[str, str], address: Address, *, program: str | None = None) -> Command:
    """The command that lets an engine serve these models.

    Args:
        engine: A key of `ENGINES`.
        names: Places by name.
        address: Where it is to listen; the port is a real one.
        program: The engine's executable; None to look for it on PATH.

    Raises:
        MissingPartError: The engine is not installed.
        UsageError: It cannot serve these, with the reason.
    """
    return ENGINES[engine](names, address, program)


def _transformers(names: Mapping[str, str], address: Address, program: str | None) -> Command:
    name, place = _only(names, "transformers")
    kind = _kind(place)
    if kind not in ("merged", "nf4", "model"):
        raise UsageError(f"{place}: transformers' server takes no {kind} exports", fix="Leave out --engine.")
    if address.key is not None:
        raise UsageError("--api-key-env: transformers' server knows no keys", fix="Leave out --engine, or use vllm.")
    if name != place.rstrip("/"):
        raise UsageError(
            f"{name}={place}: transformers' server knows a model by its folder only", fix=f"Give {place}."
        )
    if program is None and (missing := [one for one in ("fastapi", "uvicorn", "openai") if not _has(one)]):
        raise MissingPartError(
            f"transformers' server needs {', '.join(missing)}", fix="Run: pip install 'transformers[serving]'"
        )
    found = _program("transformers", program, "Run: pip install 'transformers[serving]'")
    return Command(argv=(found, "serve", name, *_listen(address)), names=(name,))


def _vllm(names: Mapping[str, str], address: Address, program: str | None) -> Command:
    kinds = {_kind(place) for place in names.values()}
    if kinds == {"adapter"}:
        served = _vllm_adapters({name: Path(place) for name, place in names.items()})
    else:
        name, place = _only(names, "vLLM, but for adapters of one base,")
        if _kind(place) not in ("merged", "model"):
            raise UsageError(f"{place}: vLLM takes no {_kind(place)} exports of ftkit", fix="Leave out --engine.")
        served = (place, "--served-model-name", name)
    found = _program(
        "vllm",
        program,
        "Install vLLM in an environment of its own, as it wants other versions than ftkit, and name its executable "
        "with --program /path/to/bin/vllm.",
    )
    env = {} if address.key is None else {"VLLM_API_KEY": address.key}
    return Command(argv=(found, "serve", *served, *_listen(address)), env=env, names=tuple(names))


def _vllm_adapters(folders: Mapping[str, Path]) -> tuple[str, ...]:
    """LoRA adapters on one plain base; tokenizer, template and stop tokens are the adapters', not the base's."""
    first = next(iter(folders.values()))
    ours, ranks = read_manifest(first), []
    for folder in folders.values():
        theirs = read_manifest(folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        reason = not_for_vllm(config, theirs)
        for what in ("tokenizer_digest", "chat_template_digest", "stop_tokens"):
            if getattr(theirs, what) != getattr(ours, what):
                reason = f"its {what.removesuffix('_digest').replace('_', ' ')} is another than that of {first}"
        if theirs.base["sha256"] != ours.base["sha256"]:
            reason = f"its base is another than that of {first}"
        if reason:
            raise UsageError(
                f"{folder}: vLLM cannot serve it: {reason}", fix="Leave out --engine, or serve the merged export."
            )
        ranks.append(vllm_rank(config))
    base = find_export_base(first, ours)
    if base.sha256 != ours.base["sha256"]:
        raise ModelError(f"{base.folder}: is not the base that {first} was trained on", fix="Fetch that base.")
    template = first / "chat_template.jinja"
    return (
        str(base.folder), "--tokenizer", str(first), "--generation-config", str(first),
        *(("--chat-template", str(template)) if template.is_file() else ()),
        "--enable-lora", "--max-loras", str(len(folders)), "--max-lora-rank", str(max(ranks)),
        "--lora-modules", *(f"{name}={folder}" for name, folder in folders.items()),
    )  # fmt: skip


def _llama_cpp(names: Mapping[str, str], address: Address, program: str | None) -> Command:
    name, place = _only(names, "llama.cpp's server")
    if _kind(place) != "gguf":
        raise UsageError(
            f"{place}: llama.cpp reads GGUF, and this is a {_kind(place)} export", fix="Leave out --engine."
        )
    folder = Path(place)
    file = artefact_of(folder, read_manifest(folder)) if folder.is_dir() else folder
    found = _program(
        "llama-server",
        program,
        "Install llama.cpp (its server is called llama-server), or name it with --program /path/to/llama-server.",
    )
    env = {} if address.key is None else {"LLAMA_API_KEY": address.key}
    # --jinja: the file's own chat template in full, where llama.cpp would else look for one that it knows by heart.
    argv = (found, "--model", str(file), "--alias", name, "--jinja", *_listen(address))
    return Command(argv=argv, env=env, names=(name,))


ENGINES: dict[str, Callable[[Mapping[str, str], Address, str | None], Command]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "llama-cpp": _llama_cpp,
}


def _kind(place: str) -> str:
    """Kind of an export; ``gguf`` for such a file, ``model`` for anything else."""
    path = Path(place)
    if (path / MANIFEST).is_file():
        return read_manifest(path).kind
    return "gguf" if path.suffix == OTHER_ENGINES["gguf"].suffix else "model"


def _only(names: Mapping[str, str], engine: str) -> tuple[str, str]:
    if len(names) > 1:
        raise UsageError(f"{engine} serves one model, not {len(names)}", fix="Serve each on a port of its own.")
    return next(iter(names.items()))


def _listen(address: Address) -> tuple[str, ...]:
    return ("--host", address.host, "--port", str(address.port))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _program(name: str, chosen: str | None, fix: str) -> str:
    beside = Path(sys.executable).with_name(name)  # a venv's own, also where it is not activated
    found = shutil.which(chosen or name) or (str(beside) if chosen is None and beside.is_file() else None)
    if found is None:
        raise MissingPartError(f"{chosen or name}: there is no such program", fix=fix)
    return found
