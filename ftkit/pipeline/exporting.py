"""From a live or a stored trained model to verified exports."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.errors import OutputError, UsageError, VerificationError
from ftkit.export.manifest import MANIFEST
from ftkit.export.probes import Probes, measure_trained
from ftkit.export.soft_prompt import needs_tokens, tokens_in_front
from ftkit.export.targets import TARGETS
from ftkit.export.trained import Trained
from ftkit.export.verify import Verification, verify_export
from ftkit.export.write import write_export
from ftkit.files import require_empty
from ftkit.models.precision import widen
from ftkit.nearest import did_you_mean
from ftkit.notices import log, show_notices
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session, open_session
from ftkit.recipe import ExportSection, Recipe, recipe_digest
from ftkit.recipe.sections import EXPORT_DTYPES
from ftkit.train.checkpoint import (
    by_validation_loss,
    checkpoints_in,
    is_whole,
    load_method_state,
    load_trainable,
    newest_checkpoint,
    step_of,
)


def describe_trained(
    session: Session,
    model: nn.Module,
    probes: Probes,
    stop_token_ids: list[int],
    folder: RunFolder,
    facts: dict[str, Any],
) -> Trained:
    """Measure the live model, in float32 arithmetic, and gather what exports record about it."""
    # Training is over, so a base held in 16 bits stays widened; exports read the same values from it.
    widen(model)
    with session.method.float32_arithmetic(model):
        measure_trained(probes, model)
    probes.save(folder.probes)
    quantization = session.quantization_config
    run = folder.read("run.json")
    return Trained(
        model=model,
        method=session.method,
        base=session.base,
        tokenizer=session.tokenizer,
        added_tokens=session.added_tokens,
        stop_token_ids=stop_token_ids,
        probes=probes,
        quantization=None if quantization is None else _plain_quantization(quantization),
        origin={
            "recipe": session.recipe.recipe,
            "method": session.recipe.method.model_dump(mode="json"),
            "recipe_digest": recipe_digest(session.recipe),
            "data_digest": run["data_digest"],
            "chat_template_kwargs": session.recipe.model.chat_template_kwargs,
        },
        facts=facts,
    )


def finish_exports(trained: Trained, wanted: Sequence[ExportSection], folder: RunFolder) -> list[dict[str, Any]]:
    """Write and verify each export of a recipe; what a former, interrupted try has written whole is kept.

    Returns:
        For result.json: kind, path below the run, dtype, passed, and the measured distances; ``refused`` with the
        reason where it could not be written.
    """
    entries = []
    for export in wanted:
        target = folder.export(export.kind)
        if not (target / MANIFEST).is_file():
            log.info("exporting %s", export.kind)
            try:
                write_export(trained, export.kind, export.dtype, target)
            except VerificationError as error:  # of what can only be known of the trained model; the others go on
                log.warning("  refused: %s", error)
                path = target.relative_to(folder.path).as_posix()
                refused = {"passed": False, "logits": None, "refused": str(error).splitlines()[0]}
                entries.append({"kind": export.kind, "path": path, **refused})
                continue
        log.info("verifying %s in a fresh process", export.kind)
        outcome = verify_export(target)
        log_outcome(outcome)
        logits = next((check.value for check in outcome.checks if check.name == "logits_match_trained"), None)
        path = target.relative_to(folder.path).as_posix()
        entries.append({"kind": export.kind, "path": path, "passed": outcome.passed, "logits": logits})
    return entries


def export_run(
    path: str | Path,
    kind: str,
    output: str | Path,
    *,
    dtype: str = "auto",
    checkpoint: str = "last",
    quiet: bool = False,
) -> Verification:
    """Export a finished run once more, in another kind, dtype or place, or from another of its checkpoints.

    Args:
        path: The run folder.
        kind: Of `ftkit.export.targets.TARGETS`.
        output: A new folder.
        dtype: Of the stored weights.
        checkpoint: ``last``; ``best``, with the lowest validation loss of those that are kept; or a step.
        quiet: Warnings only on stderr.

    Raises:
        UsageError: The method has no such export, the run is not finished, or has no such checkpoint.
        OutputError: ``output`` is not empty.
        VerificationError: The export does not behave like the trained model; it is left for inspection.
    """
    show_notices(quiet=quiet)
    folder, target = RunFolder(Path(path)), Path(output)
    recipe = folder.recipe()
    section = export_section(recipe, kind, dtype)
    require_empty(target)
    if not folder.has("result.json"):
        raise OutputError(f"{folder.path}: is not finished", fix=f"Run `ftkit resume {folder.path}` first.")
    chosen = choose_checkpoint(folder, checkpoint)
    TARGETS[section.kind].require_parts(kind)
    session = open_session(recipe)
    require_exports(session, [section])
    model = load_trained(session, folder, chosen)
    result, run = folder.read("result.json"), folder.read("run.json")
    facts = {
        "data": folder.read("data_report.json"),
        "metrics": result["metrics"],
        "losses": {side: result["losses"][f"validation_{side}"] for side in ("before", "after")},
    }
    if step_of(chosen) != result["steps"]:
        log.info("from the checkpoint of step %d of %d", step_of(chosen), result["steps"])
        measured = {step_of(found): loss for loss, found in by_validation_loss(folder.checkpoints)}
        facts["losses"]["after"] = measured.get(step_of(chosen))
        facts["metrics"] = {}  # of the last step's answers; this model was asked nothing
        facts |= {"step": step_of(chosen), "steps": result["steps"]}
    trained = describe_trained(session, model, Probes.load(folder.probes), run["stop_tokens"], folder, facts)
    write_export(trained, section.kind, dtype, target)
    return prove(target)


def require_exports(session: Session, wanted: Sequence[ExportSection]) -> None:
    """Refuse what cannot be written, or not be proven, before anything expensive.

    Raises:
        MissingPartError: A target needs a package that is not installed.
        RecipeError: Its engine cannot load such a model, or a soft prompt cannot become tokens of this tokenizer.
    """
    for export in wanted:
        target = TARGETS[export.kind]
        target.require_parts(export.kind)
        adds_tokens = bool(session.added_tokens)
        target.require_possible(export.kind, session.base, session.recipe.method, adds_tokens=adds_tokens)
    if any(needs_tokens(session.method, export.kind) for export in wanted):
        tokens_in_front(session.tokenizer, session.method.virtual_tokens, session.base.folder)


def export_section(recipe: Recipe, kind: str, dtype: str) -> ExportSection:
    """What the command line asks for, as a recipe would.

    Raises:
        UsageError: The method has no such export, or that no such dtype.
    """
    kinds = recipe.method.EXPORT_KINDS
    found = next((known for known in kinds if known == kind), None)
    if found is None:
        raise UsageError(f"{recipe.recipe} has no {kind!r} export", fix=did_you_mean(kind, kinds, what="It has"))
    if dtype not in EXPORT_DTYPES[found]:
        raise UsageError(
            f"--dtype {dtype!r} is none of {kind}", fix=did_you_mean(dtype, EXPORT_DTYPES[found], what="It has")
        )
    return ExportSection(kind=found, dtype=dtype)


def choose_checkpoint(folder: RunFolder, wanted: str = "last") -> Path:
    """A whole checkpoint of a run.

    Args:
        folder: The run.
        wanted: See `export_run`.

    Raises:
        UsageError: There is no such one.
        OutputError: It is damaged or gone.
    """
    kept = {step_of(found): found for found in checkpoints_in(folder.checkpoints)}
    if wanted == "last":
        newest = newest_checkpoint(folder.checkpoints)
        if newest is None:
            raise OutputError(f"{folder.path}: has no whole checkpoint", fix=f"Run `ftkit resume {folder.path}`.")
        last = folder.read("result.json")["steps"] if folder.has("result.json") else step_of(newest)
        # An older one would pass for the finished model: everything measured on it would agree with itself.
        if step_of(newest) != last:
            raise OutputError(
                f"{folder.path}: the checkpoint of its last step, {last}, is damaged or gone",
                fix="Use an export of the run, or train again.",
            )
        return newest
    if wanted == "best":
        ranked = by_validation_loss(folder.checkpoints)
        if not ranked:
            raise UsageError(
                f"{folder.path}: no checkpoint that is kept was validated",
                fix="Train with validation rows and train.keep_best: 1.",
            )
        found = ranked[0][1]
    elif wanted.isdecimal() and int(wanted) in kept:
        found = kept[int(wanted)]
    else:
        raise UsageError(
            f"--checkpoint {wanted!r}: {folder.path} has no such one",
            fix=f"It has last, best and the steps {', '.join(map(str, kept))}; train.keep_best keeps more.",
        )
    if not is_whole(found):
        raise OutputError(f"{found}: is damaged", fix="Choose another checkpoint.")
    return found


def load_trained(session: Session, folder: RunFolder, checkpoint: Path | None = None) -> nn.Module:
    """The trained model of a run, from its base and a checkpoint.

    Args:
        session: Of its recipe.
        folder: The run.
        checkpoint: None for that of the last step.

    Raises:
        OutputError: There is no whole checkpoint.
    """
    checkpoint = checkpoint or choose_checkpoint(folder)
    model = session.attach(session.load_base())
    load_trainable(model, checkpoint)
    total = folder.read("result.json")["total_steps"] if folder.has("result.json") else None
    load_method_state(session.method.training_hooks(model, total), checkpoint)
    return model.eval()


def prove(folder: Path, *, check: Callable[[Path], Verification] = verify_export) -> Verification:
    """Verify an export, and say what was found.

    Args:
        folder: Of the export.
        check: Verifies it.

    Raises:
        VerificationError: It does not behave like the live model; it is left for inspection.
    """
    outcome = check(folder)
    log_outcome(outcome)
    if not outcome.passed:
        raise VerificationError(_failure_text(folder, outcome), fix="See its verify.json. Do not deploy it.")
    return outcome


def log_outcome(outcome: Verification) -> None:
    """Say what a verification found."""
    for check in outcome.checks:
        if check.name == "logits_match_trained" and isinstance(check.value, dict):
            kl = check.value["kl_mean"]
            log.info(
                "  max |Δlogit| %.2g, mean KL %s, top-1 agreement %.1f %%", check.value["max_abs_diff"],
                "0" if math.isclose(kl, 0, abs_tol=1e-12) else f"{kl:.2g}", 100 * check.value["top1_agreement"],
            )  # fmt: skip
        if not check.passed:
            log.warning("  failed: %s: %s", check.name, check.detail)


def _failure_text(folder: Path, outcome: Verification) -> str:
    failed = "; ".join(f"{check.name} ({check.detail})" for check in outcome.failures)
    return f"{folder}: {failed}"


def _plain_quantization(config: Any) -> dict[str, Any]:
    """The arguments that rebuild a BitsAndBytesConfig; the compute dtype is the reader's choice."""
    if config.load_in_8bit:
        return {"load_in_8bit": True, "llm_int8_threshold": config.llm_int8_threshold}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": config.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": config.bnb_4bit_use_double_quant,
    }
