"""The outcome of a run in figures and in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ftkit.report.markup import Markup, element, mark
from ftkit.report.numbers import (
    LOWER_IS_BETTER,
    judgement,
    loss_text,
    movement,
    number,
    percent,
    pick,
    pick_number,
    score_text,
    whole,
)
from ftkit.report.read import RunFiles, exports_asked_for


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came out; None where it was not measured.

    Attributes:
        recipe: The method.
        model: The base model.
        steps: Optimizer steps done.
        total_steps: Optimizer steps planned.
        finished: Whether all of them were done and the run was closed.
        validation: Loss on validation rows, before and after (of an unfinished run: the latest).
        training: Loss of the first and of the last logged step.
        scores: Metric: before and after.
        exports: Kind: whether its checks passed; None where it was not written or not verified.
    """

    recipe: str
    model: str
    steps: float | None
    total_steps: float | None
    finished: bool
    validation: tuple[float | None, float | None]
    training: tuple[float | None, float | None]
    scores: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    exports: dict[str, bool | None] = field(default_factory=dict)


def summarise(run: RunFiles) -> Summary:
    """Take the figures from result.json, and from the other files where it has none."""
    steps = pick_number(run.result, "steps")
    if steps is None:
        steps = max((step for key in ("loss", "validation_loss") for step, _ in run.series(key)), default=None)
    total = pick_number(run.result, "total_steps")
    return Summary(
        recipe=_text(pick(run.result, "recipe"), pick(run.recipe, "recipe")),
        model=_text(pick(run.result, "model"), pick(run.recipe, "model", "path"), pick(run.recipe, "model")),
        steps=steps,
        total_steps=total,
        finished=run.result is not None and (total is None or steps is None or steps >= total),
        validation=_losses(run, "validation_loss", "validation_before", "validation_after"),
        training=_losses(run, "loss", "first_train", "last_train"),
        scores=_scores(run),
        exports={kind: export_passed(run, kind) for kind in export_kinds(run)},
    )


def export_kinds(run: RunFiles) -> list[str]:
    """Every export that was asked for, reported or found."""
    reported = [kind for kind in (pick(entry, "kind") for entry in _reported(run)) if isinstance(kind, str)]
    return list(dict.fromkeys([*exports_asked_for(run.recipe), *reported, *run.verifications]))


def reported_export(run: RunFiles, kind: str) -> dict[str, Any]:
    """What result.json says about an export; empty where it says nothing."""
    return next((entry for entry in _reported(run) if entry.get("kind") == kind), {})


def export_passed(run: RunFiles, kind: str) -> bool | None:
    """Whether an export passed: every check of verify.json, which is nearer to the bytes than result.json."""
    verification = run.verifications.get(kind)
    if verification is not None:
        checks = verification.get("checks")
        entries = checks if isinstance(checks, list) else []
        if not entries:
            return None  # nothing was checked, so nothing is proven, whatever the verdict says
        return verification.get("passed") is True and all(pick(check, "passed") is True for check in entries)
    passed = reported_export(run, kind).get("passed")
    return passed if isinstance(passed, bool) else None


def _reported(run: RunFiles) -> list[dict[str, Any]]:
    exports = pick(run.result, "exports")
    return [entry for entry in exports if isinstance(entry, dict)] if isinstance(exports, list) else []


def _text(*candidates: Any) -> str:
    return next((value for value in candidates if isinstance(value, str) and value), "unknown")


def _losses(run: RunFiles, key: str, first: str, last: str) -> tuple[float | None, float | None]:
    points = run.series(key)
    before, after = pick_number(run.result, "losses", first), pick_number(run.result, "losses", last)
    # The untouched base stands at step 0; a first validation in the middle of training is no "before".
    if before is None and points and (key == "loss" or points[0][0] == 0):
        before = points[0][1]
    if after is None and points and points[-1][0] > 0:
        after = points[-1][1]
    return before, after


def _scores(run: RunFiles) -> dict[str, tuple[float | None, float | None]]:
    before, after = pick(run.result, "metrics", "before"), pick(run.result, "metrics", "after")
    names = [name for side in (before, after) if isinstance(side, dict) for name in side]
    found = {name: (pick_number(before, name), pick_number(after, name)) for name in dict.fromkeys(names)}
    return {name: pair for name, pair in found.items() if pair != (None, None)}


def outcome(summary: Summary, run: RunFiles) -> str:
    """What the run achieved, in sentences that need no other part of the page."""
    parts = [_state(summary), _loss_sentence(summary, pick_number(run.data, "validation"))]
    for name, (before, after) in summary.scores.items():
        if before is not None and after is not None:
            change = f"{movement(before, after)} from {score_text(name, before)} to {score_text(name, after)}"
            title = name.replace("_", " ")
            better = judgement(before, after, lower_is_better=name in LOWER_IS_BETTER)
            parts.append(f"{title[:1].upper()}{title[1:]} {change} ({better}).")
    leaks = pick_number(run.data, "leaks")
    if leaks:
        parts.append(f"Beware: {whole(leaks)} validation rows are also trained on, so these figures are too good.")
    return " ".join([*parts, _exports_sentence(summary)])


def _state(summary: Summary) -> str:
    if summary.finished:
        return "" if summary.steps is None else f"Trained for {whole(summary.steps)} steps."
    if not summary.steps:
        return "The run has not finished; it has not trained yet."
    planned = "" if summary.total_steps is None else f" of {whole(summary.total_steps)}"
    return f"The run has not finished; it reached step {whole(summary.steps)}{planned}."


def _loss_sentence(summary: Summary, validation_rows: float | None) -> str:
    before, after = summary.validation
    rows = f"{whole(validation_rows)} validation rows" if validation_rows else "the validation rows"
    if before is not None and after is not None:
        change = f"{movement(before, after)} from {loss_text(before)} to {loss_text(after)}"
        so_far = "" if summary.finished else " so far"
        return f"Loss on {rows} {change}{so_far} ({judgement(before, after, lower_is_better=True)})."
    if after is not None:
        return f"Loss on {rows} is {loss_text(after)}; it was not measured before training."
    before, after = summary.training
    if before is not None and after is not None:
        return (
            f"Training loss went from {loss_text(before)} to {loss_text(after)}. Nothing was measured after training "
            "on rows that it has not seen, so this does not show how well the model does on new ones."
        )
    return "Nothing was measured yet."


def _exports_sentence(summary: Summary) -> str:
    outcomes = list(summary.exports.values())
    if not outcomes:
        return "Nothing was exported."
    passed, failed = outcomes.count(True), outcomes.count(False)
    if not passed and not failed:
        return "No export was verified."
    if passed == len(outcomes):
        return (
            "The export passed all its checks." if passed == 1 else f"All {passed} exports passed all their checks."
        )
    parts = [f"{passed} of {len(outcomes)} exports passed all their checks"]
    if failed:
        parts.append(f"{failed} failed and must not be used")
    if passed + failed < len(outcomes):
        parts.append(f"{len(outcomes) - passed - failed} not verified")
    return "; ".join(parts) + "."


def status(summary: Summary) -> Markup:
    """Finished or not, and whether the exports are sound."""
    if False in summary.exports.values():
        return mark(False, "an export failed its checks")
    if not summary.finished:
        return element("span", "● not finished", class_="open")
    return mark(True, "finished")


def loss_tile(summary: Summary) -> tuple[str, str, str]:
    """Label, value and remark: the loss that says most of those that were measured."""
    before, after = summary.validation
    label = "Validation loss"
    if before is None or after is None:
        before, after = summary.training
        label = "Training loss"
    if before is None or after is None or before <= 0:
        return label, loss_text(number(after)), "lower is better"
    change = percent(abs(after - before) / before)
    words = "unchanged" if after == before else f"{change} {'lower' if after < before else 'higher'}"
    remark = f"{words}; perplexity {_perplexity(before)} → {_perplexity(after)}"
    return label, f"{loss_text(before)} → {loss_text(after)}", remark


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.1f}" if loss < 20 else "> 10⁸"
