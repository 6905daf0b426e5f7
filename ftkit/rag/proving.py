"""Proof that an exported system answers as the live one did, with the same sources."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ftkit.errors import FtkitError, MissingPartError, ResourceError, UsageError, VerificationError
from ftkit.export.base import BASE_FOLDER
from ftkit.export.checks import Check, check_files
from ftkit.export.limits import LIMITS
from ftkit.export.manifest import MANIFEST, RAG, ExportManifest, read_manifest
from ftkit.export.process import read_alone
from ftkit.export.verify import Verification, check_export, conclude, keep_outcome, verify_export
from ftkit.export.write import VERIFICATION
from ftkit.files import FULL, error_number
from ftkit.rag.exported import GENERATOR, is_rag_export, require_own_parts

PROBES, LOGITS = "probes.json", "logits.safetensors"
SCORE_LIMIT = 1e-5
OTHER = "is another than before"
PROCESS = Path(__file__).with_name("export_process.py")
# What stays a check of its own of the generator's export; the rest of it is summed up as one.
OF_GENERATOR = ("base", "token_contract", "differs_from_base")
BEHAVIOUR = (
    "encoder", "reranker", "index", "tokenizer", "chat_template", "threshold", "greedy_text_match", "citations_match",
    "scores_match", "likelihood_match", "logits_match_trained",
)  # fmt: skip


def verify_folder(folder: Path, *, base: Path | None = None) -> Verification:
    """Check an export of any kind and write verify.json into it.

    Args:
        folder: Of the export.
        base: Folder with an adapter's base model; a whole system has its own.

    Raises:
        UsageError: A base is named for a whole system.
        VerificationError: There is no readable manifest.
    """
    if not is_rag_export(folder):
        return verify_export(folder, base=base)
    if base is not None:
        raise UsageError(f"{folder}: is a whole RAG system, which holds its base", fix="Leave out --base.")
    return verify_rag_export(folder)


def verify_rag_export(folder: Path) -> Verification:
    """Check an exported system: bytes, parts, and what it answers in a fresh process without network.

    Raises:
        VerificationError: There is no readable manifest of that kind.
        MissingPartError: What loads its encoder is not installed.
    """
    outcome = conclude(check_rag_export(folder))
    keep_outcome(folder, outcome)
    return outcome


def check_rag_export(folder: Path) -> list[Check]:
    """The checks of `verify_rag_export`; nothing is written."""
    manifest = read_manifest(folder)
    if manifest.kind != RAG:
        raise VerificationError(f"{folder}: is an export to {manifest.kind}, no RAG system", fix="Use ftkit verify.")
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingPartError(
            f"{folder}: its encoder needs sentence-transformers, which is not installed",
            fix="Run: pip install 'ftkit[rag]'",
        )
    return [check_files(folder, manifest), *_check_behaviour(folder, manifest), *_check_generator(folder)]


def _check_behaviour(folder: Path, manifest: ExportManifest) -> list[Check]:
    try:
        require_own_parts(folder)
        recorded = json.loads((folder / VERIFICATION / PROBES).read_text(encoding="utf-8"))
        wanted = load_file(folder / VERIFICATION / LOGITS)["logits"]
        job = {"folder": str(folder.resolve()), "probes": recorded["probes"]}
        with read_alone(job, PROCESS) as out:
            found = json.loads((out / "found.json").read_text(encoding="utf-8"))
            logits = load_file(out / "logits.safetensors")["logits"]
        return [Check(name="loads", passed=True), *_compare(manifest, recorded, found, wanted, logits)]
    except (MissingPartError, ResourceError):
        raise  # it says nothing about the export
    except (
        FtkitError, OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError,
        subprocess.TimeoutExpired,
    ) as error:  # fmt: skip
        if error_number(error) in FULL:
            raise
        first = Check(name="loads", passed=False, detail=_last_words(error))
        return [first, *(Check(name=name, passed=False, detail="not run: it does not load") for name in BEHAVIOUR)]


def _last_words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _compare(
    manifest: ExportManifest, recorded: dict[str, Any], found: dict[str, Any], wanted: Tensor, logits: Tensor
) -> list[Check]:
    """One check for each thing that could differ."""
    notes, before, after = manifest.notes, recorded["answers"], found["answers"]
    if len(before) != len(after) or not before:
        raise ValueError(f"verification/{PROBES} holds {len(before)} answers to {len(after)} questions")
    asked = [one["question"] for one in recorded["probes"]]
    return [
        _equal("encoder", found["encoder_sha256"], notes["encoder"]["sha256"], "is another than made the index"),
        # An export of before there were rerankers has none, and its notes do not say so.
        _equal("reranker", found["reranker"], notes.get("reranker"), OTHER),
        _check_index(found, notes["index"]),
        _equal("tokenizer", found["tokenizer_digest"], manifest.tokenizer_digest, OTHER),
        _equal("chat_template", found["chat_template_digest"], manifest.chat_template_digest, OTHER),
        _check_threshold(found, notes),
        check_each("greedy_text_match", asked, before, after, said, "answers"),
        check_each("citations_match", asked, before, after, cited, "cites"),
        check_distance("scores_match", asked, before, after, scores),
        check_distance("likelihood_match", asked, before, after, lambda answer: [answer["gold_nll"]]),
        _check_logits(wanted, logits),
    ]  # fmt: skip


def _equal(name: str, value: Any, limit: Any, fault: str) -> Check:
    same = value == limit
    detail = "" if same else f"the {name.replace('_', ' ')} {fault}"
    return Check(name=name, passed=same, value=value, limit=limit, detail=detail)


def _check_index(found: dict[str, Any], wanted: dict[str, Any]) -> Check:
    limit = {key: wanted[key] for key in ("version", "documents", "passages")}
    detail = found["index_fault"]
    if not detail and found["index"] != limit:
        detail = "the index holds something else than was exported"
    return Check(name="index", passed=not detail, value=found["index"], limit=limit, detail=detail)


def _check_threshold(found: dict[str, Any], notes: dict[str, Any]) -> Check:
    """The same threshold, in force: one that was chosen for another generator is not used in silence."""
    wanted, detail = notes["answering"]["threshold"], ""
    if found["generator_sha256"] != notes["generator"]["sha256"]:
        detail = "the generator is another than before"
    elif found["threshold"] != wanted:
        detail = f"abstains below {found['threshold']}, and the live system below {wanted}"
    return Check(name="threshold", passed=not detail, value=found["threshold"], limit=wanted, detail=detail)


def said(answer: dict[str, Any]) -> Any:
    """What of an answer must be the same."""
    return {key: answer[key] for key in ("text", "abstained", "finish_reason")}


def cited(answer: dict[str, Any]) -> Any:
    """Its sources, without their scores."""
    return [{key: value for key, value in one.items() if key != "score"} for one in answer["citations"]]


def scores(answer: dict[str, Any]) -> list[float | None]:
    """Its numbers."""
    return [*(one["score"] for one in answer["citations"]), answer["confidence"]]


def check_each(
    name: str,
    asked: Sequence[str],
    before: Sequence[Any],
    after: Sequence[Any],
    part: Callable[[Any], Any],
    verb: str,
) -> Check:
    """A part of each answer is as before."""
    differing = [
        f"{question!r}: {verb} {_short(part(new))}, and the live system {_short(part(old))}"
        for question, old, new in zip(asked, before, after, strict=True)
        if part(old) != part(new)
    ]
    value = {"equal": len(asked) - len(differing), "of": len(asked)}
    return Check(name=name, passed=not differing, value=value, detail="; ".join(differing[:3]))


def check_distance(
    name: str,
    asked: Sequence[str],
    before: Sequence[Any],
    after: Sequence[Any],
    part: Callable[[Any], list[float | None]],
) -> Check:
    """Largest difference of two lists of numbers for each question; lists that do not match are infinitely far."""
    largest, where = 0.0, ""
    for question, old, new in zip(asked, before, after, strict=True):
        distance = _distance(part(old), part(new))
        if not distance <= largest:  # also where it is no number
            largest, where = distance, question
    passed = largest <= SCORE_LIMIT
    value = {"max_abs_diff": largest if largest < float("inf") else None}
    detail = "" if passed else f"{where!r}: differs by {largest:.3g}"
    return Check(name=name, passed=passed, value=value, limit={"max_abs_diff": SCORE_LIMIT}, detail=detail)


def _distance(old: Sequence[float | None], new: Sequence[float | None]) -> float:
    if len(old) != len(new) or [one is None for one in old] != [one is None for one in new]:
        return float("inf")
    pairs = [(one, two) for one, two in zip(old, new, strict=True) if one is not None and two is not None]
    apart = [abs(one - two) for one, two in pairs]
    return max(apart, default=0.0) if all(one == one for one in apart) else float("inf")


def _check_logits(wanted: Tensor, found: Tensor) -> Check:
    """Next-token logits where gold answers begin. Both sides read the same bytes, whatever dtype they are in."""
    limits = LIMITS["float32"]
    if wanted.shape != found.shape:
        detail = f"gives logits of shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
        return Check(name="logits_match_trained", passed=False, limit=asdict(limits), detail=detail)
    old, new = torch.log_softmax(wanted, -1), torch.log_softmax(found, -1)
    apart = float((wanted - found).abs().max())
    kl = max(0.0, float((old.exp() * (old - new)).sum(-1).mean()))
    agreement = float((wanted.argmax(-1) == found.argmax(-1)).float().mean())
    value: dict[str, float | None] = {"max_abs_diff": apart, "kl_mean": kl, "top1_agreement": agreement}
    passed = apart <= limits.max_abs_diff and kl <= limits.kl_mean and agreement >= limits.top1_agreement
    detail = "" if passed else "the generator does not behave like the live one"
    if not (math.isfinite(apart) and math.isfinite(kl)):  # JSON has no such numbers
        value |= {"max_abs_diff": None, "kl_mean": None}
    return Check(name="logits_match_trained", passed=passed, value=value, limit=asdict(limits), detail=detail)


def _check_generator(folder: Path) -> list[Check]:
    """Where the generator is an export of its own, all that such an export is held to."""
    place = folder / GENERATOR
    if not (place / MANIFEST).is_file():
        untuned = "the generator is a base model as it is, so there is nothing that it should differ from"
        return [Check(name="differs_from_base", passed=True, detail=untuned)]
    try:
        base = folder / BASE_FOLDER
        checks = check_export(place, base=base if read_manifest(place).kind == "adapter" else None)
    except (MissingPartError, ResourceError):
        raise
    except FtkitError as error:
        return [Check(name="generator", passed=False, detail=str(error))]
    others = [check for check in checks if check.name not in OF_GENERATOR]
    failed = [f"{check.name} ({check.detail})" for check in others if not check.passed]
    summed = Check(
        name="generator",
        passed=not failed,
        value={check.name: check.passed for check in others},
        detail="; ".join(failed),
    )
    return [summed, *(check for check in checks if check.name in OF_GENERATOR)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:159] + "…"
