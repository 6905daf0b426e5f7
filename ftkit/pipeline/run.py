"""The straight line: prepare -> load base -> measure -> attach -> fit -> measure -> export -> verify -> report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.data.prepare import PreparedData
from ftkit.errors import Interrupted, VerificationError
from ftkit.evaluate.loss import mean_loss
from ftkit.export.probes import Probes, choose_probes, measure_base
from ftkit.files import folder_lock, require_space
from ftkit.models.precision import narrow_again, widen
from ftkit.notices import log, show_notices
from ftkit.pipeline.answers import AnswerSet, answer_questions, choose_questions
from ftkit.pipeline.estimate import Estimate, estimate
from ftkit.pipeline.exporting import describe_trained, finish_exports, require_exports
from ftkit.pipeline.forgetting import drop_distributions, measure_after, measure_before, read_general_of
from ftkit.pipeline.identity import as_it_began, identity, require_unchanged
from ftkit.pipeline.mishaps import saying_what_is_saved
from ftkit.pipeline.result import result_document, write_samples
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session, open_session
from ftkit.recipe import Recipe
from ftkit.report.page import REPORT, write_report
from ftkit.train.checkpoint import newest_checkpoint, remove_newer_checkpoints, step_of
from ftkit.train.isolation import Packing, choose_packing, isolates
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.soundness import require_finite
from ftkit.train.spec import FitSpec
from ftkit.train.trainer import fit
from ftkit.train.work import matrices_of
from ftkit.units import format_bytes, format_count


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that has come to its end.

    Attributes:
        folder: Where everything stands.
        result: The content of result.json.
    """

    folder: Path
    result: dict[str, Any]


def run(recipe: Recipe, *, quiet: bool = False) -> FinishedRun:
    """Do everything that a recipe asks for.

    Args:
        recipe: Complete; nothing else decides the result.
        quiet: Warnings only on stderr.

    Returns:
        The finished run.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving a checkpoint that `resume` goes on from.
    """
    show_notices(quiet=quiet)
    recipe = recipe.resolved()
    folder = RunFolder(Path(recipe.output or ""))
    with saying_what_is_saved(folder), _claimed(folder):
        session = open_session(recipe)
        require_exports(session, session.recipe.export or ())
        read_general_of(session)  # its faults are told before anything is prepared
        data = session.prepare_data()
        needs = estimate(session, data)
        needs.require_fit()
        require_space(folder.path, needs.disk)
        folder.start(recipe, data.report, identity(session, data), session.today)
        return _go(session, data, needs, folder)


def resume(path: str | Path, *, quiet: bool = False) -> FinishedRun:
    """Go on with an interrupted run, or finish what is missing of it.

    Raises:
        OutputError: Recipe, data or base model changed since it began, or another process works on it.
    """
    show_notices(quiet=quiet)
    folder = RunFolder(Path(path))
    recipe = folder.recipe()
    if folder.has("result.json"):
        result = folder.read("result.json")
        if not folder.has(REPORT):  # it was killed between the two
            with saying_what_is_saved(folder), folder_lock(folder.path):
                write_report(folder.path)
                folder.tidy()
        _require_verified(result)
        log.info("%s is finished; there is nothing to resume", folder.path)
        return FinishedRun(folder=folder.path, result=result)
    with saying_what_is_saved(folder), folder_lock(folder.path), as_it_began(folder):
        folder.tidy()
        # Templates that write the date must render today what they rendered when the run began.
        session = open_session(recipe, today=folder.began())
        data = session.prepare_data()
        require_unchanged(folder, identity(session, data))
        return _go(session, data, estimate(session, data), folder)


@contextlib.contextmanager
def _claimed(folder: RunFolder) -> Iterator[None]:
    """A fresh folder under lock; if the run never starts, nothing is left of it."""
    existed = folder.path.exists()
    if folder.path.is_file():
        folder.require_fresh()
    with folder_lock(folder.path):
        try:
            folder.require_fresh()
            yield
        finally:
            # While it is held: afterwards, the lock removed might be another process's.
            folder.abandon_start()
            if not existed and not folder.is_run():
                (folder.path / ".lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something of somebody else's is in it
                    folder.path.rmdir()


def _go(session: Session, data: PreparedData, needs: Estimate, folder: RunFolder) -> FinishedRun:
    recipe = session.recipe
    _announce(session, data, needs)
    model = session.load_base()
    require_finite(model)
    questions = choose_questions(
        data.validation,
        at_most=recipe.evaluate.max_examples,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        metrics=recipe.evaluate.metrics,
    )
    general = read_general_of(session)
    before, probes = _measure_base(session, data, model, questions, folder)
    measure_before(session, general, model, folder)
    model = session.attach(model)
    packing = _choose_packing(session, model)
    checkpoint = newest_checkpoint(folder.checkpoints)
    metrics = MetricsLog(folder.path / "metrics.jsonl")
    step = step_of(checkpoint) if checkpoint else 0
    metrics.keep_through(step)
    remove_newer_checkpoints(folder.checkpoints, step)
    if checkpoint is None:
        session.start(model, data)
    spec = _fit_spec(session, needs, folder, model, packing)
    hooks = session.method.training_hooks(model, spec.total_steps(len(data.train)))
    result = fit(model, data.train, data.validation, spec, resume_from=checkpoint, hooks=hooks)
    if result.interrupted:
        raise Interrupted(
            f"stopped after step {result.steps} of {result.total_steps}; everything is saved",
            fix=f"Go on with: ftkit resume {folder.path}",
        )
    after = answer_questions(
        model,
        questions,
        session.tokenizer,
        stop_token_ids=data.stop_token_ids,
        metrics=recipe.evaluate.metrics,
        title="answers after",
        pads_prompts=session.method.pads_prompts,
    )
    write_samples(folder, questions, before["answers"], after["answers"], recipe.evaluate.samples)
    facts = {
        "data": data.report.to_dict(),
        "metrics": {"before": before["metrics"], "after": after["metrics"]},
        "losses": {"before": before["validation_loss"], "after": result.validation_loss},
        "packing": packing,
        "flops": matrices_of(model).trained(result.tokens),
        "forgetting": measure_after(session, general, model, folder),
    }
    trained = describe_trained(session, model, probes, data.stop_token_ids, folder, facts)
    exports = finish_exports(trained, recipe.export or (), folder)
    document = result_document(session, needs, result, facts, exports)
    folder.write("result.json", document)
    drop_distributions(folder)
    write_report(folder.path)
    _require_verified(document)
    return FinishedRun(folder=folder.path, result=document)


def _require_verified(result: dict[str, Any]) -> None:
    failed = [entry["path"] for entry in result["exports"] if not entry["passed"] and not entry.get("refused")]
    refused = [f"{entry['path']}: {entry['refused']}" for entry in result["exports"] if entry.get("refused")]
    if refused and not failed:
        raise VerificationError(
            "; ".join(refused), fix="The run is finished all the same; its other exports stand beside."
        )
    if failed:
        raise VerificationError(
            f"these exports do not behave like the trained model: {', '.join(failed)}",
            fix="See verify.json in each. Do not deploy them.",
        )


def _announce(session: Session, data: PreparedData, needs: Estimate) -> None:
    report = data.report
    log.info(
        "%s on %s: %s of %s parameters train; %d rows, %s tokens (%s count), %d rows held back",
        session.recipe.recipe, session.base.portable_name, format_count(needs.trainable_parameters),
        format_count(needs.total_parameters), report.trained, format_count(report.tokens),
        format_count(report.supervised_tokens), report.validation,
    )  # fmt: skip
    log.info(
        "device %s, arithmetic %s, about %s of memory (%s free)", session.device,
        str(session.precision.compute).removeprefix("torch."), format_bytes(needs.memory),
        format_bytes(needs.available),
    )  # fmt: skip
    if needs.memory > needs.available:
        log.warning("memory may not suffice; train.micro_batch_size=1 or train.gradient_checkpointing=true need less")
    if report.leaks:
        log.warning("%d validation rows are also trained on, so validation figures flatter", report.leaks)


def _measure_base(
    session: Session, data: PreparedData, model: nn.Module, questions: AnswerSet, folder: RunFolder
) -> tuple[dict[str, Any], Probes]:
    """The untouched base's validation loss, answers and probe logits; read back when a run is resumed."""
    if folder.has("before.json"):
        return folder.read("before.json"), Probes.load(folder.probes)
    loss = None
    if data.validation:
        loss = mean_loss(model, data.validation, compute=session.precision.compute).mean
    answers = answer_questions(
        model,
        questions,
        session.tokenizer,
        stop_token_ids=data.stop_token_ids,
        metrics=session.recipe.evaluate.metrics,
        title="answers before",
    )
    probes = choose_probes(data.validation or data.train, vocabulary=int(model.config.vocab_size))
    narrow = widen(model)
    with session.method.float32_arithmetic(model):
        measure_base(probes, model)
    narrow_again(model, narrow)
    probes.save(folder.probes)
    before = {"validation_loss": loss, **answers}
    folder.write("before.json", before)
    log_file = MetricsLog(folder.path / "metrics.jsonl")
    log_file.keep_through(-1)  # of a try that died before before.json was whole
    if loss is not None:
        log_file.write({"step": 0, "epoch": 0.0, "validation_loss": loss})
    return before, probes


def _choose_packing(session: Session, model: nn.Module) -> Packing:
    """Before the first step and before every resume, on the same weights: so it is decided alike."""
    method, recipe = session.method, session.recipe
    packing = choose_packing(
        recipe.data.packing,
        method_refuses=None if method.packs else method.unpacked_because,
        micro_batch_size_is_set=recipe.train.micro_batch_size != "auto",
        proof=lambda: _prove_isolation(session, model),
        exact_forward=method.exact_forward,
    )
    log.info("%s: %s", "packed" if packing.on else "not packed", packing.reason)
    return packing


def _prove_isolation(session: Session, model: nn.Module) -> str | None:
    # Where products are in 8 bits, rows of any pass differ from themselves alone by more than a proof can overlook.
    exact = contextlib.nullcontext() if session.method.exact_forward else session.method.float32_arithmetic(model)
    with exact:
        return isolates(model, compute=session.precision.compute)


def _fit_spec(session: Session, needs: Estimate, folder: RunFolder, model: nn.Module, packing: Packing) -> FitSpec:
    train = session.recipe.train
    assert train.learning_rate is not None, "resolved recipes have one"
    return FitSpec(
        learning_rate=train.learning_rate,
        schedule=train.schedule,
        warmup=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        epochs=train.epochs,
        max_steps=train.max_steps,
        batch_size=train.batch_size,
        micro_batch_size=needs.micro_batch_size,
        packing=packing.on,
        gradient_checkpointing=train.gradient_checkpointing,
        compute=session.precision.compute,
        seed=train.seed,
        checkpoint_every=train.checkpoint_every,
        keep_last=train.keep_last,
        keep_best=train.keep_best,
        validate_every=train.validate_every,
        log_every=train.log_every,
        folder=folder.path,
        learning_rate_factors=session.method.learning_rate_factors(model),
        undecayed=session.method.undecayed(model),
        trainable_parameters=needs.trainable_parameters,
        prompts_masked=session.recipe.data.train_on != "all",
    )
