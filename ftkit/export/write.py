"""Writing exports: one function a kind, and the table that lists them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ftkit.export.card import model_card
from ftkit.export.manifest import MANIFEST, ExportManifest, library_versions, list_files
from ftkit.export.probes import Probes, text_fixtures
from ftkit.export.token_contract import make_contract
from ftkit.files import new_folder, require_empty, write_json
from ftkit.methods import Method
from ftkit.models.find import BaseModel
from ftkit.models.load import load_model, quiet_transformers
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest
from ftkit.models.vocabulary import extend_vocabulary
from ftkit.models.weights import checkpoint_dtype

VERIFICATION = "verification"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with all that an export records about it.

    Attributes:
        model: Live, in float32 arithmetic.
        method: That trained it.
        base: What it was trained from.
        tokenizer: With the chat template that was trained with.
        added_tokens: Ids added to the base's vocabulary, with what they were cut into before.
        stop_token_ids: Tokens that end an answer.
        probes: Measured on the base and on the live model.
        quantization: Plain arguments of the base's BitsAndBytesConfig, or None.
        origin: Fields of the manifest that the run knows: recipe, method, recipe_digest, data_digest.
        facts: For the model card.
    """

    model: nn.Module
    method: Method
    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    added_tokens: dict[int, tuple[int, ...]]
    stop_token_ids: list[int]
    probes: Probes
    quantization: dict[str, Any] | None
    origin: dict[str, Any]
    facts: dict[str, Any]


def write_export(trained: Trained, kind: str, dtype: str, folder: Path) -> ExportManifest:
    """Write one export; it appears complete, or not at all.

    Args:
        trained: The live model and its record.
        kind: A key of `EXPORTERS`.
        dtype: Of merged weights; ``auto`` for the base checkpoint's own.
        folder: Where to; must be absent or empty.

    Raises:
        OutputError: The folder is in use.
    """
    require_empty(folder)
    with new_folder(folder) as partial, quiet_transformers():
        stored = EXPORTERS[kind](trained, dtype, partial)
        trained.tokenizer.save_pretrained(partial)
        _generation_config(trained).save_pretrained(partial)
        trained.probes.save(partial / VERIFICATION)
        # Of the live tokenizer, so that verifying compares the exported template with the one that was trained with.
        contract = make_contract(trained.tokenizer)
        contract.write(partial)
        fixtures = text_fixtures(trained.tokenizer)
        (partial / VERIFICATION / "texts.json").write_text(json.dumps(fixtures), encoding="utf-8")
        manifest = ExportManifest(
            kind=kind,
            base={
                "name": trained.base.portable_name,
                "revision": trained.base.revision,
                "sha256": trained.base.sha256,
            },
            tokenizer_digest=tokenizer_digest(trained.tokenizer),
            chat_template_digest=chat_template_digest(trained.tokenizer),
            token_contract_digest=contract.digest,
            dtype=stored,
            quantization=trained.quantization if kind == "adapter" else None,
            added_tokens=sorted(trained.added_tokens),
            stop_tokens=trained.stop_token_ids,
            versions=library_versions(),
            **trained.origin,
        )
        (partial / "README.md").write_text(model_card(manifest, trained.facts), encoding="utf-8")
        manifest = replace(manifest, files=list_files(partial))
        write_json(partial / MANIFEST, manifest.to_dict())
    return manifest


def _write_adapter(trained: Trained, dtype: str, folder: Path) -> str:
    del dtype  # adapters are small; they keep the float32 that they were trained in
    trained.method.save(trained.model, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = trained.base.peft_name
    config["revision"] = trained.base.revision if trained.base.peft_name == trained.base.name else None
    if "peft_type" in config:
        config["inference_mode"] = True
    write_json(path, _sorted_lists(config))
    return "float32"


def _sorted_lists(config: dict[str, Any]) -> dict[str, Any]:
    """PEFT keeps target names in a set, whose order differs from process to process."""
    return {
        key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
        for key, value in config.items()
    }


def _write_merged(trained: Trained, dtype: str, folder: Path) -> str:
    stored = checkpoint_dtype(trained.base.folder) if dtype == "auto" else dtype
    fresh = load_model(trained.base.folder, dtype=torch.float32, device=torch.device("cpu"))
    extend_vocabulary(fresh, trained.added_tokens)
    merged: Any = trained.method.merge(trained.model, fresh)
    merged.to(getattr(torch, stored))
    merged.save_pretrained(folder, safe_serialization=True, max_shard_size="5GB")
    return stored


EXPORTERS: dict[str, Callable[[Trained, str, Path], str]] = {"adapter": _write_adapter, "merged": _write_merged}


def _generation_config(trained: Trained) -> GenerationConfig:
    """The base's own settings, with every token that was trained to end an answer among the stops."""
    inner: Any = trained.model
    while hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    config = copy.deepcopy(getattr(inner, "generation_config", None)) or GenerationConfig()
    own = config.eos_token_id
    known = [own] if isinstance(own, int) else list(own or [])
    stops = trained.stop_token_ids + [token for token in known if token not in trained.stop_token_ids]
    config.eos_token_id = stops[0] if len(stops) == 1 else stops
    if config.pad_token_id is None:
        config.pad_token_id = stops[0]
    if not config.do_sample:
        # Some checkpoints carry these without asking for sampling; transformers loads that but will not write it.
        for key in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            setattr(config, key, None)
    return config
