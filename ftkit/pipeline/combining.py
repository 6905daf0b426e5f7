"""Several adapters of one base into one export, proven to be their combination."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

from ftkit.errors import ModelError, Problem
from ftkit.export.base import find_export_base
from ftkit.export.probes import Probes, measure_base, measure_trained
from ftkit.export.targets import TARGETS
from ftkit.export.trained import Trained
from ftkit.export.verify import Verification
from ftkit.export.write import write_export
from ftkit.files import require_empty, sha256_json
from ftkit.methods import Built, Combination, Method, expected_update, method_of, write_combination
from ftkit.models.find import BaseModel
from ftkit.models.load import load_model
from ftkit.models.precision import default_device
from ftkit.models.tokenizer import load_tokenizer
from ftkit.notices import log, show_notices
from ftkit.pipeline.combination_proof import (
    combination_facts,
    expected_answers,
    require_near,
    require_same_answers,
    require_update,
)
from ftkit.pipeline.combination_sources import Source, open_sources, settle
from ftkit.pipeline.exporting import export_section, prove
from ftkit.recipe import RECIPES, ExportSection, Recipe
from ftkit.train.progress import ProgressBar

_THIN_KINDS = ("adapter", "gguf-adapter")


@dataclass(frozen=True, kw_only=True)
class Combined:
    """A combination that was written and verified.

    Attributes:
        folder: Of the export.
        facts: What the manifest records of it under ``notes.combination``.
        verification: Of the export.
    """

    folder: Path
    facts: dict[str, Any]
    verification: Verification = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {"path": str(self.folder), "combination": self.facts, **self.verification.to_dict()}


def combine(  # noqa: PLR0913 - a parameter an option
    adapters: Sequence[str | Path],
    output: str | Path,
    *,
    weights: Sequence[float],
    how: str = "linear",
    density: float | None = None,
    majority_sign: str | None = None,
    seed: int | None = None,
    rank: int | None = None,
    to: str = "adapter",
    dtype: str = "auto",
    base: str | Path | None = None,
    quiet: bool = False,
) -> Combined:
    """Combine LoRA adapters of one base into one verified export.

    Args:
        adapters: Run folders and adapter exports.
        output: A new folder.
        weights: One for each adapter.
        how: ``linear``, ``ties``, ``dare_linear`` or ``dare_ties``; see `ftkit.methods.Combination`.
        density: Share of each update that stays; not with ``linear``. None for 0.5.
        majority_sign: ``total`` or ``frequency``, where signs are elected. None for ``total``.
        seed: Of DARE's draws. None for 0.
        rank: Of an adapter. None for the sum of the ranks, which ``linear`` needs and the others may exceed.
        to: A kind of export. Merged ones have the whole update, whatever its rank.
        dtype: Of the stored weights.
        base: Folder with the base model, where it is not where the first adapter has it.
        quiet: Show warnings only.

    Raises:
        UsageError: The adapters or the options do not go together; with everything that speaks against it.
        OutputError: ``output`` is not empty.
        ModelError: The base is not here, or is another.
        VerificationError: The result is not the combination, or loses too much of it at this rank.
    """
    show_notices(quiet=quiet)
    target = Path(output)
    require_empty(target)
    chosen = {"density": density, "majority_sign": majority_sign, "seed": seed}
    combination, problems = settle(len(adapters), weights, how, chosen)
    if rank is not None and (rank < 1 or to not in _THIN_KINDS):
        what = f"{rank} is below 1" if rank < 1 else f"{to} has the whole update, whatever its rank"
        problems.append(Problem(where="rank", what=what, fix="Leave it out."))
    sources = open_sources(adapters, problems)
    assert combination is not None, "what cannot be settled is a problem"
    recipe = _recipe(sources[0], rank=1, targets=("all",))
    section = export_section(recipe, to, dtype)
    TARGETS[section.kind].require_parts(to)
    found = _find_base(sources[0], None if base is None else Path(base))
    TARGETS[section.kind].require_possible(section.kind, found, recipe.method)
    wanted = rank
    if rank is None and combination.how != "linear" and section.kind in _THIN_KINDS:
        wanted = sum(max(layer.up.shape[1] for layer in source.matrices.values()) for source in sources)
    with tempfile.TemporaryDirectory(prefix="ftkit-combine-") as scratch:
        trained = _build(sources, combination, found, Path(scratch), wanted)
    return _export(trained, section, target)


def _export(trained: Trained, section: ExportSection, target: Path) -> Combined:
    log.info("exporting %s", section.kind)
    write_export(trained, section.kind, section.dtype, target)
    log.info("verifying %s in a fresh process", section.kind)
    return Combined(folder=target, facts=trained.notes["combination"], verification=prove(target))


def _find_base(source: Source, named: Path | None) -> BaseModel:
    base = find_export_base(source.folder, source.manifest, named)
    if base.sha256 != source.manifest.base["sha256"]:
        raise ModelError(
            f"{source.folder}: was trained on {source.manifest.base['name']} with weights SHA-256 "
            f"{source.manifest.base['sha256'][:16]}…, but {base.folder} has {base.sha256[:16]}…",
            fix="Name the base that the adapters were trained on with --base FOLDER.",
        )
    return base


def _recipe(source: Source, *, rank: int, targets: tuple[str, ...]) -> Recipe:
    """A recipe whose method would have such an adapter."""
    manifest = source.manifest
    kept: dict[str, Any] = {
        key: manifest.method[key] for key in ("quantization", "double_quantization") if key in manifest.method
    }
    method: dict[str, Any] = {"rank": rank, "alpha": rank, "target_modules": targets} | kept
    return RECIPES[manifest.recipe].model_validate({"model": "-", "data": "-", "method": method})


def _build(
    sources: Sequence[Source], combination: Combination, base: BaseModel, scratch: Path, rank: int | None
) -> Trained:
    """The combination as a live model, held to what it should be, with all that an export records about it."""
    tokenizer = load_tokenizer(sources[0].folder)
    method = _method(sources[0], tokenizer, rank=1, targets=("all",))
    plain = _load_base(sources[0], base, method)
    probes = Probes(
        ids=[ids for source in sources for ids in source.probes.ids],
        positions=[positions for source in sources for positions in source.probes.positions],
        prompts=[prompt for source in sources for prompt in source.probes.prompts],
    )
    log.info("combining %d adapters: %s", len(sources), combination.how)
    is_exact = rank is None and combination.how == "linear"
    with method.float32_arithmetic(plain):
        measure_base(probes, plain)
        expected = expected_answers(probes, plain, sources, combination) if is_exact else None
    names, stacked = _stack(plain, method, sources)
    built = _write(stacked, names, sources, combination, scratch, rank)
    lost = require_update(scratch, sources, combination, built)
    method = _method(sources[0], tokenizer, rank=built.rank, targets=built.targets)
    model = method.load(stacked.unload(), scratch).eval()
    with method.float32_arithmetic(model):
        measure_trained(probes, model)
    if expected is not None:
        require_same_answers(expected, probes)
    facts = combination_facts(sources, combination, built, lost, probes)
    return Trained(
        model=model,
        method=method,
        base=base,
        tokenizer=tokenizer,
        added_tokens={},
        stop_token_ids=sources[0].manifest.stop_tokens,
        probes=probes,
        quantization=sources[0].manifest.quantization,
        origin=_origin(sources, built, facts),
        facts={},
        notes={"combination": facts},
    )


def _method(source: Source, tokenizer: PreTrainedTokenizerBase, *, rank: int, targets: tuple[str, ...]) -> Method:
    method = method_of(_recipe(source, rank=rank, targets=targets))
    method.bind(tokenizer)
    return method


def _load_base(source: Source, base: BaseModel, method: Method) -> nn.Module:
    quantization = source.manifest.quantization
    config = None if quantization is None else BitsAndBytesConfig(**quantization)
    loaded = load_model(base.folder, dtype=torch.float32, device=default_device(), quantization_config=config)
    return method.prepare(loaded)


def _stack(plain: nn.Module, method: Method, sources: Sequence[Source]) -> tuple[list[str], Any]:
    """All adapters on one base by PEFT, and their names there."""
    stacked: Any = method.load(plain, sources[0].folder)
    names = ["default", *(f"source{index}" for index in range(1, len(sources)))]
    for name, source in zip(names[1:], sources[1:], strict=True):
        method.load_beside(stacked, source.folder, name)
    return names, stacked


def _write(
    stacked: Any,
    names: Sequence[str],
    sources: Sequence[Source],
    combination: Combination,
    scratch: Path,
    rank: int | None,
) -> Built:
    """Write the combined adapter; every layer's whole update is held to the formula as it comes."""
    adapters = [source.matrices for source in sources]
    count = len({layer for adapter in adapters for layer in adapter})
    with ProgressBar("combining layers", count) as bar:

        def watch(layer: str, update: torch.Tensor) -> None:
            expected = expected_update(combination, adapters, layer)
            require_near(layer, float((update - expected).norm()), float(expected.norm()), combination)
            bar.update(bar.done + 1)

        built: Built = write_combination(stacked, names, combination, scratch, rank=rank, watch=watch)
    return built


def _origin(sources: Sequence[Source], built: Built, facts: dict[str, Any]) -> dict[str, Any]:
    """Where the combination comes from, in the manifest's words."""
    first = sources[0].manifest
    settings = {key: value for key, value in facts.items() if key not in ("truncation", "sources")}
    parts = [(source["weights_sha256"], source["weight"]) for source in facts["sources"]]
    method = _recipe(sources[0], rank=built.rank, targets=built.targets).method
    return {
        "recipe": first.recipe,
        "method": method.model_dump(mode="json"),
        "recipe_digest": sha256_json({**settings, "sources": parts}),
        "data_digest": sha256_json([source.manifest.data_digest for source in sources]),
        "chat_template_kwargs": first.chat_template_kwargs,
    }
