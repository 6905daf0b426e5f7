"""Plain weights of the base's architecture, which any engine loads that knows it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.export.measure import Artefact, measure
from ftkit.export.soft_prompt import merge_prompt
from ftkit.export.target import Target
from ftkit.export.trained import Trained, Written
from ftkit.machine import give_back_freed_memory
from ftkit.methods import MergeBase, Merger
from ftkit.models.load import load_model
from ftkit.models.shards import Checkpoint, Shards
from ftkit.models.vocabulary import extend_vocabulary, extended_table, vocabulary_tables
from ftkit.models.weights import checkpoint_dtype
from ftkit.notices import log

Pieces = dict[int, tuple[int, ...]]


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write config.json and safetensors.

    Where the method can merge into several forms of the base (QLoRA: the quantised one that it was trained on, or the
    original), each is written and measured against the live model, and the closest is kept.

    Args:
        trained: The live model and its record.
        dtype: Of the weights; ``auto`` for the base checkpoint's own.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = checkpoint_dtype(trained.base.folder) if dtype == "auto" else dtype
    bases = trained.method.merge_bases
    if len(bases) == 1:
        return Written(dtype=stored, notes=_write_merge(trained, bases[0], stored, folder))
    measured: dict[MergeBase, dict[str, float]] = {}
    for base in bases:
        candidate = folder / f".merge-{base}"
        candidate.mkdir()
        _write_merge(trained, base, stored, candidate)
        trained.tokenizer.save_pretrained(candidate)  # the process that measures it reads one
        distances = measure(Artefact(folder=candidate, kind="merged"), trained.probes).distances
        measured[base] = {key: distances[key] for key in ("max_abs_diff", "kl_mean", "top1_agreement")}
        log.info(
            "  merged into the %s base: max |Δlogit| %.2g, mean KL %.2g", base, distances["max_abs_diff"],
            distances["kl_mean"],
        )  # fmt: skip
    best = min(bases, key=lambda base: measured[base]["kl_mean"])
    log.info("  kept: the %s base", best)
    for path in (folder / f".merge-{best}").iterdir():
        path.replace(folder / path.name)
    for base in bases:
        shutil.rmtree(folder / f".merge-{base}")
    return Written(dtype=stored, notes={"merged_into": best, "measured": measured})


def _write_merge(trained: Trained, base: MergeBase, dtype: str, folder: Path) -> dict[str, Any]:
    """One merge, module by module where that can be done; gives what the manifest is to record of it."""
    skeleton = _skeleton(trained.base.folder, trained.added_tokens)
    names, tables = _shapes(skeleton), _tables(skeleton)
    checkpoint = Checkpoint(trained.base.folder)
    merger = None
    if _is_stored_alike(names, tables, checkpoint):
        merger = trained.method.merger(trained.model, skeleton, base=base)
    if merger is not None:
        stream(checkpoint, merger, names, dtype, folder, rows=tables, added=trained.added_tokens)
        save_config(skeleton, dtype, folder)
        return {}
    fresh = load_model(trained.base.folder, dtype=torch.float32, device=torch.device("cpu"))
    extend_vocabulary(fresh, trained.added_tokens)
    merged: Any = trained.method.merge(trained.model, fresh, base=base)
    notes = merge_prompt(trained, merged)
    merged.to(getattr(torch, dtype))
    merged.save_pretrained(folder, safe_serialization=True, max_shard_size="5GB")
    return notes


def stream(
    checkpoint: Checkpoint,
    merger: Merger,
    shapes: dict[str, tuple[int, ...]],
    dtype: str,
    folder: Path,
    *,
    rows: dict[str, int],
    added: Pieces,
) -> None:
    """Merge and write module by module; at no time is more in memory than one module and one tensor.

    Args:
        checkpoint: Of the base.
        merger: Of the method.
        shapes: Of every tensor of the merged model, by name.
        dtype: Of the stored weights.
        folder: Where to.
        rows: Of the tables with one row a token, by name.
        added: Ids added to the vocabulary.
    """

    def read(name: str) -> Tensor:
        value = checkpoint.read(name).float()
        return extended_table(value, rows[name], added) if name in rows else value

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for names in _modules(shapes):
            yield from merger.merged(names, read)
            give_back_freed_memory()

    ordered = [(name, shapes[name]) for names in _modules(shapes) for name in names]
    Shards.of(ordered, dtype).write(folder, tensors())


def save_config(skeleton: Any, dtype: str, folder: Path) -> None:
    """config.json as transformers' save_pretrained writes it."""
    skeleton.config.dtype = dtype
    skeleton.config.architectures = [type(skeleton).__name__]
    skeleton.config.save_pretrained(folder)


def _skeleton(folder: Path, added: Pieces) -> Any:
    """The base without memory behind it."""
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        skeleton = AutoModelForCausalLM.from_config(config)
        extend_vocabulary(skeleton, added)
    return skeleton


def _shapes(skeleton: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all that a checkpoint holds: parameters, a tied one once, and buffers that are stored."""
    kept = skeleton.state_dict()
    named = [*skeleton.named_parameters(), *skeleton.named_buffers()]
    return {name: tuple(value.shape) for name, value in named if name in kept}


def _tables(skeleton: nn.Module) -> dict[str, int]:
    tables = {id(table) for table in vocabulary_tables(skeleton)}
    return {name: value.shape[0] for name, value in skeleton.named_parameters() if id(value) in tables}


def _is_stored_alike(shapes: dict[str, tuple[int, ...]], tables: dict[str, int], checkpoint: Checkpoint) -> bool:
    """Whether the base's files hold its tensors under the names and in the shapes that they have in memory.

    transformers renames, splits and fuses some while it loads them; those models are merged in memory.
    """
    stored = checkpoint.shapes
    return checkpoint.is_float and all(
        name in stored and (stored[name] == shape or (name in tables and stored[name][1:] == shape[1:]))
        for name, shape in shapes.items()
    )


def _modules(shapes: dict[str, tuple[int, ...]]) -> list[list[str]]:
    """Names in groups that have to be merged together: those of one module."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return list(groups.values())


MERGED = Target(write=write)
