"""From an index or a RAG run to one folder that answers anywhere: models, encoders, index and documents."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ftkit.errors import DataError, OutputError, UsageError
from ftkit.export.manifest import MANIFEST, RAG, ExportManifest, library_versions, list_files
from ftkit.export.verify import Verification
from ftkit.export.write import BASE_LICENCE, VERIFICATION
from ftkit.files import new_folder, require_empty, sha256_json, write_json
from ftkit.models.find_encoder import EncoderFolder
from ftkit.models.licences import licence_files
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest
from ftkit.notices import log, show_notices
from ftkit.pipeline.exporting import prove
from ftkit.rag.answering import RagSystem
from ftkit.rag.beginning import run_questions
from ftkit.rag.export_card import export_card
from ftkit.rag.exported import GENERATOR, INDEX, is_rag_export, part_names
from ftkit.rag.index import Index
from ftkit.rag.likelihood import gives_likelihoods
from ftkit.rag.opening import generator_of, is_rag_place, open_system
from ftkit.rag.parts import GeneratorCopy, copy_encoders, copy_generator, copy_reranker
from ftkit.rag.probing import Probe, Probed, choose_probes, probe, reranker_notes
from ftkit.rag.proving import LOGITS, PROBES, verify_rag_export
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.run import RESULT, is_rag_run
from ftkit.rag.settings import AnsweringDefaults, write_defaults
from ftkit.rag.snapshot import copy_index
from ftkit.rag.threshold import generator_sha256, read_threshold, write_threshold
from ftkit.recipe import load_rag_recipe


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the live system answered.

    Attributes:
        version: Of the index, all along.
        probes: That were asked.
        answers: One each.
        logits: See `ftkit.rag.probing.probe`.
    """

    version: int
    probes: list[Probe]
    answers: list[Probed]
    logits: Tensor


def export_rag(source: str | Path, output: str | Path, *, quiet: bool = False) -> Verification:
    """Write a system as one self-contained folder, and verify it in a fresh process without network.

    The index is copied as it is searched now, without former versions. Answers to a few questions are recorded from
    the live system first; the export must give the same, from the same passages.

    Args:
        source: An index folder, or a finished RAG run.
        output: A new folder; it appears complete, or not at all.
        quiet: Warnings only on stderr.

    Raises:
        UsageError: The source is neither, or its generator gives no likelihoods.
        OutputError: ``output`` is not empty, the run is not finished, or the index was changed meanwhile.
        DataError: The index is empty or damaged.
        VerificationError: The export does not answer like the live system; it is left for inspection.
    """
    show_notices(quiet=quiet)
    place, target = Path(source), Path(output)
    _require_source(place)
    require_empty(target)
    system = open_system(place)
    _require_exportable(place, system)
    log.info("asking the live system")
    recorded = _record(system, _questions_of(place))
    with new_folder(target) as partial:
        _write(place, system, recorded, partial, generator_of(system.index.folder, system.index.settings.generator))
    system.index.close()
    log.info("verifying the export in a fresh process")
    return prove(target, check=verify_rag_export)


def write_system(place: Path, system: RagSystem, folder: Path, *, generator: str) -> None:
    """Write an open system as `export_rag` does, as part of a larger export that is verified as a whole.

    Args:
        place: Of its index or RAG run.
        system: Asked as its export is to be.
        folder: A new folder.
        generator: Where the system's generator stands; it may be another than its index names.

    Raises:
        FtkitError: As `export_rag`.
    """
    _require_exportable(place, system)
    recorded = _record(system, _questions_of(place))
    with new_folder(folder) as partial:
        _write(place, system, recorded, partial, generator)


def _require_source(place: Path) -> None:
    if is_rag_export(place):
        raise UsageError(f"{place}: is an export already", fix="Copy the folder, or bundle it with --bundle.")
    if not is_rag_place(place):
        raise UsageError(
            f"{place}: is neither an index nor a RAG run",
            fix="Name a folder that `ftkit rag index` or `ftkit rag train` wrote.",
        )
    if is_rag_run(place) and not (place / RESULT).is_file():
        raise OutputError(f"{place}: is not finished", fix=f"Run `ftkit resume {place}` first.")


def _require_exportable(place: Path, system: RagSystem) -> None:
    if not system.index.passages:
        raise DataError(f"{place}: holds no documents", fix="Add some with: ftkit rag add DIR SOURCE")
    if not gives_likelihoods(system.generator):
        raise UsageError(
            f"{place}: its generator is read by llama.cpp, which gives no likelihoods to hold an export to",
            fix="Let the index name a merged or adapter export, or a model.",
        )
    system.index.require_sound()


def _questions_of(place: Path) -> list[AskedQuestion]:
    """A run's held-back questions, else those that it was trained on; none of a bare index."""
    if not is_rag_run(place):
        return []
    try:
        train, held = run_questions(load_rag_recipe(place / "recipe.yaml"))
    except DataError as error:
        log.warning("%s: its questions cannot be read, so others are made from its documents: %s", place, error)
        return []
    return held or train


def _record(system: RagSystem, asked: Sequence[AskedQuestion]) -> Recorded:
    version = system.index.version
    probes = choose_probes(asked, system)
    answers, logits = probe(system, probes)
    return Recorded(version=version, probes=probes, answers=answers, logits=logits)


def _write(place: Path, system: RagSystem, recorded: Recorded, folder: Path, named: str) -> None:
    """Fill the folder."""
    index, encoders = system.index, system.encoders
    own_query = copy_encoders(encoders, folder)
    generator = copy_generator(named, folder)
    version = copy_index(index, folder / INDEX, part_names(own_query_encoder=own_query))
    _require_unchanged(place, recorded, version)
    usual = AnsweringDefaults(
        mode=system.mode,
        passages=system.passages,
        max_new_tokens=system.max_new_tokens,
        hops=system.hops,
        reranker=None if system.reranker is None else copy_reranker(system.reranker.found, folder),
        reranked=system.reranked,
    )
    write_defaults(folder / INDEX, usual)
    # One that was chosen for another generator is not in force, and would only be warned of again.
    if system.threshold is not None and (stored := read_threshold(index.folder)) is not None:
        write_threshold(folder / INDEX, stored)
    answers = {
        "probes": [asdict(one) for one in recorded.probes],
        "answers": [asdict(one) for one in recorded.answers],
    }
    write_json(folder / VERIFICATION / PROBES, answers)
    save_file({"logits": recorded.logits}, folder / VERIFICATION / LOGITS)
    if licences := licence_files(folder / GENERATOR):
        (folder / BASE_LICENCE).write_bytes(licences[0].read_bytes())
    with Index(folder / INDEX, read_only=True) as copied:
        manifest = _manifest(place, system, copied, generator)
    (folder / "README.md").write_text(export_card(manifest), encoding="utf-8")
    write_json(folder / MANIFEST, replace(manifest, files=list_files(folder)).to_dict())


def _require_unchanged(place: Path, recorded: Recorded, version: int) -> None:
    seen = {citation.version for answer in recorded.answers for citation in answer.citations} | {version}
    if seen != {recorded.version}:
        raise OutputError(
            f"{place}: was changed while it was exported, from version {recorded.version} to {max(seen)}",
            fix="Export again once nothing writes to it.",
        )


def _manifest(place: Path, system: RagSystem, index: Index, generator: GeneratorCopy) -> ExportManifest:
    """Of the copied index, as the live one may go on."""
    encoders, target = system.encoders, system.generator
    documents = [[name, sha256_json(index.text(name))] for name in index.documents]
    settings = asdict(index.settings)
    recipe_digest = sha256_json(
        {key: settings[key] for key in ("passage_tokens", "overlap_tokens", "words", "width")}
    )
    if is_rag_run(place):
        recipe_digest = json.loads((place / "rag.json").read_text(encoding="utf-8"))["recipe_digest"]
    return ExportManifest(
        kind=RAG,
        recipe=RAG,
        method={},
        base=generator.base,
        recipe_digest=recipe_digest,
        data_digest=sha256_json(documents),
        tokenizer_digest=tokenizer_digest(target.tokenizer),
        chat_template_digest=chat_template_digest(target.tokenizer),
        dtype=generator.dtype,
        quantization=None,
        stop_tokens=list(target.stop_token_ids),
        notes={
            "generator": {
                "kind": generator.kind,
                "recipe": generator.recipe,
                "sha256": generator_sha256(target),
            },
            "encoder": _encoder_notes(encoders.document.found, encoders.query.found) | {"sha256": encoders.sha256},
            "reranker": reranker_notes(system),
            "index": {
                "version": index.version,
                "documents": len(documents),
                "passages": index.passages,
                **{key: settings[key] for key in ("passage_tokens", "overlap_tokens", "words", "width")},
            },
            "answering": {
                "mode": system.mode,
                "passages": system.passages,
                "max_new_tokens": system.max_new_tokens,
                "threshold": system.threshold,
            },
        },
        versions=library_versions() | {"sentence-transformers": importlib.metadata.version("sentence-transformers")},
    )


def _encoder_notes(document: EncoderFolder, query: EncoderFolder) -> dict[str, Any]:
    return {"name": document.portable_name, "own_query_encoder": query.sha256 != document.sha256}
