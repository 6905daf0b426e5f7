"""Proof that an export behaves like the model that was trained."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ftkit.errors import FtkitError, MissingPartError, ResourceError, VerificationError
from ftkit.export.base import find_export_base
from ftkit.export.checks import (
    Check,
    check_base,
    check_contract,
    check_differs,
    check_engine,
    check_engine_texts,
    check_files,
    check_greedy,
    check_logits,
    check_silence,
    check_template,
    check_tokenizer,
)
from ftkit.export.engine_tokens import engine_texts
from ftkit.export.limits import LIMITS
from ftkit.export.manifest import VERIFY, WHOLE, ExportManifest, read_manifest
from ftkit.export.measure import Artefact, measure
from ftkit.export.probes import Probes
from ftkit.export.targets import TARGETS
from ftkit.export.token_contract import TokenContract, read_contract
from ftkit.export.write import VERIFICATION
from ftkit.files import FULL, READ_ONLY, error_number, write_json
from ftkit.methods import ADAPTER_LOADERS, check_adapter
from ftkit.models.find import BaseModel
from ftkit.models.tokenizer import load_tokenizer
from ftkit.models.weights import check_model_folder


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of all checks."""

    passed: bool
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """As written to verify.json."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}

    @property
    def failures(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if not check.passed]


def verify_export(folder: Path, *, base: Path | None = None) -> Verification:
    """Check an export and write verify.json into it (where the folder can be written).

    The artefact is loaded in a fresh process with transformers and PEFT alone and without network.

    Args:
        folder: Of the export.
        base: Folder with an adapter's base model; None to look where `find_export_base` does.

    Raises:
        VerificationError: There is no readable manifest.
        ModelError: An adapter's base model is not to be found.
        MissingPartError: The engine that it is for, or what its reader needs, is not installed.
    """
    outcome = conclude(check_export(folder, base=base))
    keep_outcome(folder, outcome)
    return outcome


def check_export(folder: Path, *, base: Path | None = None) -> list[Check]:
    """The checks of `verify_export`; nothing is written."""
    manifest = read_manifest(folder)
    if manifest.kind in WHOLE:
        raise VerificationError(f"{folder}: is a whole answering system", fix="Check it with: ftkit verify DIR")
    TARGETS[manifest.kind].require_parts(manifest.kind)
    checks = [check_files(folder, manifest)]
    found = None
    if TARGETS[manifest.kind].on_base:
        found = find_export_base(folder, manifest, base)
        checks.append(check_base(found, manifest))
    return checks + _check_behaviour(folder, manifest, found)


def conclude(checks: Sequence[Check]) -> Verification:
    """Passed if all of them did."""
    return Verification(passed=all(check.passed for check in checks), checks=tuple(checks))


def keep_outcome(folder: Path, outcome: Verification) -> None:
    """Write verify.json; a read-only medium can still be verified."""
    try:
        write_json(folder / VERIFY, outcome.to_dict())
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


def _check_behaviour(folder: Path, manifest: ExportManifest, base: BaseModel | None) -> list[Check]:
    """Everything that needs the artefact loaded."""
    names = (
        "loads", "tokenizer", "chat_template", "token_contract", "logits_match_trained", "differs_from_base",
        "greedy_text_match",
    )  # fmt: skip
    contract, contract_fault = _contract_of(folder, manifest)
    try:
        probes = Probes.load(folder / VERIFICATION)
        fixtures = json.loads((folder / VERIFICATION / "texts.json").read_text(encoding="utf-8"))
        tokenizer = load_tokenizer(folder)
        _require_safe(folder, manifest, vocabulary=len(tokenizer))
        wanted: dict[str, Any] = {"fixtures": fixtures}
        if contract is not None:
            wanted |= {"contract": contract.questions(), "clocks": [contract.clock]}
        own = TARGETS[manifest.kind].own_tokenizer
        texts = engine_texts(tokenizer, fixtures, contract, manifest.prefix_ids) if own else None
        asked = None if texts is None else texts.questions()
        measured = measure(_artefact(folder, manifest, base), probes, wanted, asked)
        found = measured.texts
    except (MissingPartError, ResourceError):
        raise  # it says nothing about the export
    except (
        FtkitError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        SafetensorError,
        subprocess.TimeoutExpired,
    ) as error:
        if error_number(error) in FULL:
            raise  # nor does a disk without room for what its reader is told
        first = Check(name="loads", passed=False, detail=str(error))
        return [first, *(Check(name=name, passed=False, detail="not run: it does not load") for name in names[1:])]
    is_int8 = bool(manifest.quantization and manifest.quantization.get("load_in_8bit"))
    limits = LIMITS["int8" if is_int8 else manifest.dtype]
    checks = [
        Check(name="loads", passed=True),
        check_tokenizer(tokenizer, manifest, found, fixtures),
        check_template(tokenizer, manifest, found, fixtures),
        check_contract(folder, manifest, contract, contract_fault, found),
        *([] if texts is None else [check_engine(folder, manifest, tokenizer, found["engine"], texts)]),
        check_logits(measured.distances, limits),
        check_differs(measured.distances, limits),
        check_greedy(probes, measured),
    ]
    checks += [check_engine_texts(found, fixtures, manifest.prefix_ids)] if "engine_texts" in found else []
    return [*checks, check_silence(measured.distances)] if manifest.prefix_ids else checks


def _require_safe(folder: Path, manifest: ExportManifest, *, vocabulary: int) -> None:
    """Refuse what the process that loads it would unpickle, fetch, or make endless room for.

    Raises:
        ModelError: Its weights cannot be loaded safely.
        VerificationError: It adds tokens that its own tokenizer does not have.
    """
    if manifest.kind in ("merged", "nf4"):
        check_model_folder(folder)
    elif manifest.kind == "adapter" and manifest.recipe not in ADAPTER_LOADERS:
        check_adapter(folder)
    if any(not 0 <= token < vocabulary for token in manifest.added_tokens):
        raise VerificationError(f"{folder}: manifest.json adds tokens that its tokenizer does not have")


def _artefact(folder: Path, manifest: ExportManifest, base: BaseModel | None) -> Artefact:
    return Artefact(
        folder=folder,
        kind=manifest.kind,
        base_folder=None if base is None else base.folder,
        quantization=manifest.quantization,
        rows=max(manifest.added_tokens, default=-1) + 1,
        loader=ADAPTER_LOADERS.get(manifest.recipe) if manifest.kind == "adapter" else None,
        prefix_ids=tuple(manifest.prefix_ids),
        reader=TARGETS[manifest.kind].reader,
        prepare=TARGETS[manifest.kind].prepare,
    )


def _contract_of(folder: Path, manifest: ExportManifest) -> tuple[TokenContract | None, str]:
    """The export's token contract, or what is wrong with it."""
    try:
        return read_contract(folder, manifest.token_contract_digest), ""
    except VerificationError as error:
        return None, str(error)
