"""Which engines an export works in: proven by its own verification, expected, or impossible, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ftkit.export.manifest import ExportManifest

Status = Literal["proven", "expected", "impossible"]
# Ranks that vLLM has kernels for; it is told the smallest that suffices.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_HERE = "its own verification, in verify.json, ran in it"
_NOT_RUN = "it reads files of this kind; ftkit has not run it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """What is known of an export in one engine.

    Attributes:
        name: Of the engine.
        status: ``proven``: these very files were measured in it against the trained model. ``expected``: it reads
            such files, and these were not measured in it. ``impossible``: it cannot load them as they are.
        why: What that rests on, and for ``impossible`` what can be done.
    """

    name: str
    status: Status
    why: str


def engines_of(manifest: ExportManifest, adapter: Mapping[str, Any] | None = None) -> list[Engine]:
    """Every engine that people may think of for an export, the proven ones first.

    Args:
        manifest: Of the export.
        adapter: Its adapter_config.json, where it has one of PEFT's.
    """
    if manifest.kind == "adapter":
        found = _of_adapter(manifest, adapter or {})
    else:
        found = [Engine(name=name, status=status, why=why) for name, status, why in _OF_KIND[manifest.kind]]
    order: dict[str, int] = {"proven": 0, "expected": 1, "impossible": 2}
    return sorted(found, key=lambda engine: order[engine.status])


def not_for_vllm(adapter: Mapping[str, Any], manifest: ExportManifest) -> str:
    """Why vLLM cannot serve an adapter beside its base; empty where it can.

    Args:
        adapter: Its adapter_config.json.
        manifest: Of its export.
    """
    if adapter.get("peft_type") != "LORA":
        return f"it takes LoRA adapters, not {adapter.get('peft_type', manifest.recipe)}"
    if adapter.get("use_dora"):
        return "it has no DoRA"
    if manifest.quantization is not None:
        return "the adapter was trained on a quantised base, which vLLM would quantise in its own way"
    if manifest.added_tokens or adapter.get("modules_to_save") or adapter.get("trainable_token_indices"):
        return "it brings rows or modules of its own beside LoRA"
    rank = largest_rank(adapter)
    return f"rank {rank} is above {VLLM_RANKS[-1]}" if rank > VLLM_RANKS[-1] else ""


def largest_rank(adapter: Mapping[str, Any]) -> int:
    """The rank that a server must have room for."""
    ranks: list[int] = [adapter["r"], *adapter.get("rank_pattern", {}).values()]
    return max(ranks)


def vllm_rank(adapter: Mapping[str, Any]) -> int:
    """What ``--max-lora-rank`` must be for an adapter that vLLM can serve."""
    needed = largest_rank(adapter)
    return next(size for size in VLLM_RANKS if size >= needed)


def _of_adapter(manifest: ExportManifest, adapter: Mapping[str, Any]) -> list[Engine]:
    if manifest.recipe == "adapter":
        why = "it knows no bottleneck layers, and a bottleneck cannot be merged"
        return [
            Engine(name="ftkit", status="proven", why=f"{_HERE}, through `ftkit.load_adapter`"),
            *_none("PEFT", "vLLM", "llama.cpp", "ONNX Runtime GenAI", why=why),
        ]
    quantised = manifest.quantization is not None
    peft = "transformers with PEFT" + (" and bitsandbytes" if quantised else "")
    proven = Engine(name=peft, status="proven", why=_HERE)
    if adapter.get("peft_type") == "PREFIX_TUNING":
        why = "it has no place for stored keys and values, and they cannot be merged"
        return [proven, *_none("vLLM", "llama.cpp", "ONNX Runtime GenAI", why=why)]
    way = "it takes no adapter of this kind; use the export to "
    others = [
        Engine(name="llama.cpp, Ollama", status="impossible", why=way + "gguf" + _or_gguf_adapter(manifest, adapter)),
        Engine(name="ONNX Runtime GenAI", status="impossible", why=f"{way}onnx"),
    ]
    reason = not_for_vllm(adapter, manifest)
    if reason:
        vllm = Engine(name="vLLM", status="impossible", why=f"{reason}; use the export to merged")
        return [proven, vllm, *others]
    vllm = Engine(
        name="vLLM",
        status="expected",
        why=f"with `--enable-lora --max-lora-rank {vllm_rank(adapter)}`; ftkit's conformance tests hold it to this",
    )
    return [proven, vllm, Engine(name="SGLang, TGI", status="expected", why=_NOT_RUN), *others]


def _or_gguf_adapter(manifest: ExportManifest, adapter: Mapping[str, Any]) -> str:
    plain = adapter.get("peft_type") == "LORA" and not adapter.get("use_dora") and manifest.quantization is None
    return ", or to gguf-adapter" if plain and not manifest.added_tokens else ""


def _none(*names: str, why: str) -> list[Engine]:
    return [Engine(name=name, status="impossible", why=why) for name in names]


_OF_KIND: dict[str, list[tuple[str, Status, str]]] = {
    "merged": [
        ("transformers", "proven", _HERE),
        ("vLLM", "expected", "ftkit's conformance tests hold merged exports in it to the trained model"),
        ("SGLang, TGI", "expected", _NOT_RUN),
        ("llama.cpp, Ollama", "impossible", "they read GGUF alone; use the export to gguf"),
        ("ONNX Runtime GenAI", "impossible", "it reads ONNX alone; use the export to onnx"),
    ],
    "nf4": [
        ("transformers with bitsandbytes", "proven", _HERE),
        ("vLLM", "expected", f"on CUDA, with bitsandbytes: {_NOT_RUN}"),
        (
            "llama.cpp, Ollama",
            "impossible",
            "they read GGUF alone; use the export to gguf",
        ),
        (
            "ONNX Runtime GenAI",
            "impossible",
            "it reads ONNX alone; use the export to onnx",
        ),
    ],
    "gguf": [
        ("llama.cpp", "proven", _HERE),
        ("Ollama", "expected", f"through the Modelfile beside it: {_NOT_RUN}"),
        ("transformers, vLLM", "impossible", "they would unpack it into other weights; use the export to merged"),
        ("ONNX Runtime GenAI", "impossible", "it reads ONNX alone; use the export to onnx"),
    ],
    "gguf-adapter": [
        ("llama.cpp", "proven", f"{_HERE}, on the base as a GGUF of float32"),
        ("Ollama", "expected", f"by a Modelfile with ADAPTER: {_NOT_RUN}"),
        ("PEFT, vLLM", "impossible", "they read adapters of PEFT's form; use the export to adapter"),
    ],
    "onnx": [
        ("ONNX Runtime GenAI", "proven", _HERE),
        ("transformers, vLLM", "impossible", "they read safetensors; use the export to merged"),
        ("llama.cpp, Ollama", "impossible", "they read GGUF alone; use the export to gguf"),
    ],
}
