"""The parts of the page that are about the run as a whole: headline, curves, samples, resources, recipe."""

from __future__ import annotations

import json
from typing import Any

from ftkit.report.markup import Markup, element, join, mark, note, section, table
from ftkit.report.numbers import (
    LOWER_IS_BETTER,
    NONE,
    judgement,
    loss_text,
    percent,
    pick,
    pick_number,
    plain,
    score_text,
    whole,
)
from ftkit.report.read import RunFiles
from ftkit.report.summary import Summary, loss_tile, outcome, status
from ftkit.report.svg import MAX_POINTS, Series, line_chart
from ftkit.units import format_bytes, format_count, format_duration

Tile = tuple[str, str, str]


def headline(run: RunFiles, summary: Summary) -> Markup:
    """What was run, what came out, and what is missing from the folder."""
    tiles = [loss_tile(summary)]
    for name, (before, after) in summary.scores.items():
        words = ""
        if before is not None and after is not None:
            words = judgement(before, after, lower_is_better=name in LOWER_IS_BETTER)
        tiles.append((name.replace("_", " "), f"{score_text(name, before)} → {score_text(name, after)}", words))
    if summary.exports:
        passed = sum(outcome is True for outcome in summary.exports.values())
        tiles.append(("Exports verified", f"{passed} of {len(summary.exports)}", ", ".join(summary.exports)))
    wall_s, tokens_per_s, _ = _resources(run)
    if wall_s is not None:
        speed = "" if tokens_per_s is None else f"{whole(tokens_per_s)} tokens/s"
        tiles.append(("Training time", format_duration(wall_s), speed))
    missing = None
    if run.missing:
        listed = element("ul", *(element("li", sentence) for sentence in run.missing))
        missing = element("div", element("strong", "Missing from this run folder"), listed, class_="missing")
    return element(
        "header",
        element("p", status(summary), class_="status"),
        element("h1", summary.recipe, element("span", " on ", class_="quiet"), summary.model),
        element("p", outcome(summary, run).strip(), class_="lead"),
        tile_list(tiles),
        missing,
    )


def tile_list(tiles: list[Tile]) -> Markup:
    """Label, value and remark of each, side by side."""
    return element(
        "dl",
        *(
            element("div", element("dt", label), element("dd", value), element("dd", remark, class_="remark"))
            for label, value, remark in tiles
        ),
        class_="tiles",
    )


def curves(run: RunFiles) -> Markup:
    """Losses over the steps; learning rate and gradient norm in small."""
    training, validation = run.series("loss"), run.series("validation_loss")
    if not training and not validation:
        return section("curves", "Loss", note("No losses were logged."))
    series = [
        Series(name="training", points=training, style="training"),
        Series(name="validation", points=validation, style="validation", markers=True),
    ]
    chart = line_chart(series, title=_curve_words(series), size=(1040, 340), y_text=loss_text, label_width=165)
    keys = [element("span", line.name, class_=f"key {line.style}") for line in series if line.points]
    remarks = ["Loss says how surprised the model is by each token it should write; lower is better."]
    if len(training) > MAX_POINTS:
        remarks.append(f"Each training point is the mean of about {len(training) / MAX_POINTS:.0f} logged steps.")
    if validation:
        best_step, best = min(validation, key=lambda point: point[1])
        if best_step < validation[-1][0]:
            remarks.append(
                f"Validation loss was lowest at step {whole(best_step)} ({loss_text(best)}); "
                "later steps did not improve it."
            )
    else:
        remarks.append("No validation loss was logged.")
    return section(
        "curves", "Loss",
        element("p", *keys, class_="legend"), element("div", chart, class_="scroll"), note(" ".join(remarks)),
        _validation_table(validation), _small_charts(run),
    )  # fmt: skip


def _curve_words(series: list[Series]) -> str:
    ends = [
        f"{line.name} from {loss_text(line.points[0][1])} to {loss_text(line.points[-1][1])}"
        for line in series
        if line.points
    ]
    return "Loss over the training step: " + ", ".join(ends)


def _validation_table(points: list[tuple[float, float]]) -> Markup | None:
    if not points:
        return None
    rows = [[whole(step), loss_text(value)] for step, value in points]
    return element(
        "details",
        element("summary", "Validation losses as figures"),
        table(["step", "validation loss"], rows, numeric=(1,), class_="narrow"),
    )


def _small_charts(run: RunFiles) -> Markup:
    figures = []
    for key, title, style in (
        ("learning_rate", "Learning rate", "rate"), ("grad_norm", "Gradient norm", "norm"),
    ):  # fmt: skip
        points = run.series(key)
        if not points:
            continue
        series = Series(name=title.lower(), points=points, style=style)
        chart = line_chart([series], title=f"{title} over the training step", size=(510, 220), y_text=plain)
        figures.append(element("figure", element("figcaption", title), chart))
    return element("div", *figures, class_="pair")


def samples(run: RunFiles) -> Markup | None:
    """Answers before and after training, next to the reference."""
    if not run.samples:
        return None if run.samples is None else section("samples", "Samples", note("No samples were asked for."))
    rows = [
        [
            _answer(sample.get("prompt"), None),
            _answer(sample.get("reference"), None),
            _answer(sample.get("before"), sample.get("reference")),
            _answer(sample.get("after"), sample.get("reference")),
        ]
        for sample in run.samples
    ]
    return section(
        "samples", "Samples",
        note("✓ same text as the reference, white space at the ends aside; ✗ other text, which can still be a good "
             "answer. Decoded greedily."),
        table(["Prompt", "Reference", "Before training", "After training"], rows, class_="samples"),
    )  # fmt: skip


def _answer(text: Any, reference: Any) -> Markup:
    if text is None:
        return element("span", "not generated", class_="quiet")
    shown = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    verdict = None
    if isinstance(reference, str):
        same = shown.strip() == reference.strip()
        verdict = element("div", mark(same, "matches" if same else "differs"), class_="verdict")
    body = element("span", "(empty)", class_="quiet") if not shown.strip() else shown
    # Foreign text may turn the writing direction of what follows; tabindex lets the keyboard scroll long ones.
    return join(verdict, element("div", body, class_="text", dir="auto", tabindex="0"))


def _resources(run: RunFiles) -> tuple[float | None, float | None, float | None]:
    """Wall time, tokens a second and peak memory; of an unfinished run as far as it came."""
    last = {key: points[-1][1] for key in ("wall_s", "tokens") if (points := run.series(key))}
    wall_s, speed = pick_number(run.result, "wall_s"), pick_number(run.result, "tokens_per_s")
    peak = pick_number(run.result, "peak_memory_bytes")
    if wall_s is None:
        wall_s = last.get("wall_s")
    if speed is None and last.get("wall_s") and "tokens" in last:
        speed = last["tokens"] / last["wall_s"]
    if peak is None:
        peak = max((value for _, value in run.series("peak_memory_bytes")), default=None)
    return wall_s, speed, peak


def resources(run: RunFiles, summary: Summary) -> Markup:
    """What the run cost."""
    wall_s, tokens_per_s, peak = _resources(run)
    trainable = pick_number(run.result, "trainable_parameters")
    total = pick_number(run.result, "total_parameters")
    logged = run.series("tokens")
    tokens = logged[-1][1] if logged else pick_number(run.result, "tokens")
    share = f"{percent(trainable / total)} of {format_count(total)}" if trainable is not None and total else ""
    planned = "" if summary.total_steps is None else f"of {whole(summary.total_steps)} planned"
    tiles = [
        ("Training time", NONE if wall_s is None else format_duration(wall_s), "data and optimizer included"),
        ("Speed", NONE if tokens_per_s is None else f"{whole(tokens_per_s)} tokens/s", "padding not counted"),
        ("Peak memory", NONE if peak is None else format_bytes(peak), "all processes together"),
        ("Steps", whole(summary.steps), planned),
        ("Tokens trained on", NONE if tokens is None else format_count(tokens), ""),
        ("Trained parameters", NONE if trainable is None else format_count(trainable), share),
    ]
    return section("resources", "Resources", tile_list(tiles))


def versions(run: RunFiles) -> Markup | None:
    """With which releases the figures came about."""
    found = pick(run.result, "versions")
    if not isinstance(found, dict) or not found:
        return None
    rows = [[str(name), str(version)] for name, version in sorted(found.items())]
    return section("versions", "Versions", table(["package", "version"], rows, class_="narrow"))


def recipe(run: RunFiles) -> Markup:
    """The recipe with every default written out: what it takes to do this run again."""
    body = element("details", element("summary", "recipe.yaml, every default written out"),
                   element("pre", element("code", run.recipe_text)))  # fmt: skip
    return section("recipe", "Recipe", body)
