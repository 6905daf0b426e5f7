"""Proof that an exported hybrid sends and answers questions as the live one did."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from ftkit.errors import FtkitError, MissingPartError, ResourceError, UsageError, VerificationError
from ftkit.export.base import BASE_FOLDER
from ftkit.export.checks import Check, check_files
from ftkit.export.manifest import HYBRID, MANIFEST, read_manifest
from ftkit.export.process import read_alone
from ftkit.export.verify import Verification, check_export, conclude, keep_outcome
from ftkit.export.write import VERIFICATION
from ftkit.files import FULL, error_number
from ftkit.hybrid.exported import MEMBERS, is_hybrid_export
from ftkit.hybrid.opening import read_description
from ftkit.pipeline import bundling
from ftkit.rag.exported import GENERATOR, is_rag_export
from ftkit.rag.proving import check_distance, check_each, check_rag_export, cited, said, scores
from ftkit.rag.proving import verify_folder as verify_other

PROBES = "probes.json"
PROCESS = Path(__file__).with_name("export_process.py")
BEHAVIOUR = ("routes_match", "greedy_text_match", "citations_match", "scores_match")


def verify(path: str | Path, *, base: str | Path | None = None, public_key: str | Path | None = None) -> Verification:
    """Check an export folder of any kind, or a bundle as it is; see `ftkit.pipeline.bundling.verify`."""
    return bundling.verify(path, base=base, public_key=public_key, check=verify_folder)


def verify_folder(folder: Path, *, base: Path | None = None) -> Verification:
    """Check an export of any kind and write verify.json into it.

    Raises:
        UsageError: A base is named for a whole system.
        VerificationError: There is no readable manifest.
    """
    if not is_hybrid_export(folder):
        return verify_other(folder, base=base)
    if base is not None:
        raise UsageError(f"{folder}: is a whole hybrid, which holds its bases", fix="Leave out --base.")
    return verify_hybrid_export(folder)


def verify_hybrid_export(folder: Path) -> Verification:
    """Check an exported hybrid: bytes, each member, and what it answers in a fresh process without network.

    Raises:
        VerificationError: There is no readable manifest of that kind.
    """
    manifest = read_manifest(folder)
    if manifest.kind != HYBRID:
        raise VerificationError(f"{folder}: is an export to {manifest.kind}, no hybrid", fix="Use ftkit verify.")
    checks = [check_files(folder, manifest), *_check_behaviour(folder), *_check_members(folder)]
    outcome = conclude(checks)
    keep_outcome(folder, outcome)
    return outcome


def _check_behaviour(folder: Path) -> list[Check]:
    try:
        read_description(folder)
        recorded = json.loads((folder / VERIFICATION / PROBES).read_text(encoding="utf-8"))
        asked, before = recorded["questions"], recorded["answers"]
        with read_alone({"folder": str(folder.resolve()), "questions": asked}, PROCESS) as out:
            after = json.loads((out / "found.json").read_text(encoding="utf-8"))["answers"]
        if not len(asked) == len(before) == len(after) or not asked:
            raise ValueError(f"verification/{PROBES} holds {len(before)} answers to {len(asked)} questions")
        return [
            Check(name="loads", passed=True),
            check_each("routes_match", asked, before, after, _member, "is sent to"),
            check_each("greedy_text_match", asked, before, after, said, "answers"),
            check_each("citations_match", asked, before, after, cited, "cites"),
            check_distance("scores_match", asked, before, after, scores),
        ]
    except (MissingPartError, ResourceError):
        raise  # it says nothing about the export
    except (
        FtkitError, OSError, ValueError, KeyError, TypeError, AttributeError, subprocess.TimeoutExpired,
    ) as error:  # fmt: skip
        if error_number(error) in FULL:
            raise
        first = Check(name="loads", passed=False, detail=str(error) or type(error).__name__)
        return [first, *(Check(name=name, passed=False, detail="not run: it does not load") for name in BEHAVIOUR)]


def _member(answer: dict[str, Any]) -> Any:
    return answer["member"]


def _check_members(folder: Path) -> list[Check]:
    """Each member by all that an export of its kind is held to, summed up as one check."""
    return [_check_member(place) for place in sorted((folder / MEMBERS).iterdir()) if place.is_dir()]


def _check_member(place: Path) -> Check:
    name = f"{MEMBERS}.{place.name}"
    try:
        checks = _checks_of(place)
    except (MissingPartError, ResourceError):
        raise
    except FtkitError as error:
        return Check(name=name, passed=False, detail=str(error))
    failed = [f"{check.name} ({check.detail})" for check in checks if not check.passed]
    value = {check.name: check.passed for check in checks}
    return Check(name=name, passed=not failed, value=value, detail="; ".join(failed))


def _checks_of(place: Path) -> list[Check]:
    if is_rag_export(place):
        return check_rag_export(place)
    generator = place / GENERATOR
    if not (generator / MANIFEST).is_file():
        return []  # a base model as it is: its bytes and answers are checked with the rest
    base = place / BASE_FOLDER
    return check_export(generator, base=base if read_manifest(generator).kind == "adapter" else None)
