"""report.html of a RAG run: one page, drawn from the files of its folder alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ftkit.files import write_text
from ftkit.rag.run_page_parts import course, index_part, links, questions, stretch_charts
from ftkit.rag.stretches import Stretch, read_stretches
from ftkit.report.markup import Markup, element
from ftkit.report.numbers import LOWER_IS_BETTER, judgement, loss_text, movement, pick, pick_number, score_text, whole
from ftkit.report.page import whole_page
from ftkit.report.read import RunFiles, read_json, read_run
from ftkit.report.sections import recipe, resources, samples, tile_list, versions
from ftkit.report.summary import Summary, export_kinds, export_passed, loss_tile, status, summarise
from ftkit.report.tables import exports
from ftkit.units import format_duration

PAGE = "report.html"
# Written by ordinary runs at their top, and by this one in the folder of its reader.
ELSEWHERE = ("metrics.jsonl", "samples.json")


def write_run_page(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a RAG run from the files that it holds.

    Files that an interrupted run did not get to are named on the page. The same files give the same bytes.

    Args:
        folder: Of the run.

    Returns:
        The page.

    Raises:
        UsageError: The folder has no recipe.yaml.
    """
    run = _files(folder)
    stretches = read_stretches(folder)
    summary = _summary(run, stretches)
    main = element(
        "main",
        _headline(run, summary, stretches),
        course(stretches),
        stretch_charts(stretches),
        questions(run),
        samples(run),
        exports(run),
        index_part(folder),
        resources(run, summary),
        links(folder),
        versions(run),
        recipe(run),
    )
    target = folder / PAGE
    write_text(target, whole_page(f"{summary.recipe} on {summary.model}: report", main))
    return target


def _files(folder: Path) -> RunFiles:
    """The run's files, with the samples of its reader and every export of its generator by what it is."""
    run = read_run(folder)
    missing = [sentence for sentence in run.missing if not sentence.startswith(ELSEWHERE)]
    shown = None
    if (folder / "reader" / "samples.json").is_file():
        shown = read_json(folder, "reader/samples.json", list, "", missing)
    proofs: dict[str, dict[str, Any] | None] = {}
    entries = []
    for path, of in _export_folders(folder).items():
        name = f"{of}: {path}"
        proofs[name] = read_json(folder, f"{path}/verify.json", dict, "this export was not verified", missing)
        entries.append({"kind": name})
    values = {key: value for key, value in run.recipe.items() if key != "export"}
    result = None if run.result is None else {**run.result, "exports": entries}
    return replace(
        run,
        recipe=values,
        result=result,
        samples=None if shown is None else [one for one in shown if isinstance(one, dict)],
        verifications=proofs,
        missing=tuple(missing),
    )


def _export_folders(folder: Path) -> dict[str, str]:
    """Path below the run and what it is, of each export of the generator; the one that answers first."""
    found = {"generator": "Generator as joint training leaves it"} if (folder / "generator").is_dir() else {}
    kinds = folder / "reader" / "export"
    for place in sorted(kinds.iterdir()) if kinds.is_dir() else ():
        if place.is_dir() and not place.name.startswith("."):
            found[f"reader/export/{place.name}"] = "Generator as the stage reader leaves it"
    return found


def _summary(run: RunFiles, stretches: list[Stretch]) -> Summary:
    found = summarise(run)
    steps = [pick_number(one.result, "steps") or (one.training[-1][0] if one.training else 0) for one in stretches]
    reader = next((one for one in stretches if one.name == "reader"), None)
    validation = found.validation if reader is None else reader.held_back
    return replace(
        found,
        steps=found.steps if found.steps is not None else sum(steps) or None,
        finished=run.result is not None,
        validation=validation,
        exports={kind: export_passed(run, kind) for kind in export_kinds(run)},
    )


def _headline(run: RunFiles, summary: Summary, stretches: list[Stretch]) -> Markup:
    label, value, remark = loss_tile(summary)
    tiles = [(f"{label} of the reader" if stretches and stretches[0].name == "reader" else label, value, remark)]
    for name, (before, after) in summary.scores.items():
        words = ""
        if before is not None and after is not None:
            words = f"stage reader: {judgement(before, after, lower_is_better=name in LOWER_IS_BETTER)}"
        tiles.append((name.replace("_", " "), f"{score_text(name, before)} → {score_text(name, after)}", words))
    documents, passages = pick_number(run.result, "documents"), pick_number(run.result, "passages")
    if documents is not None:
        tiles.append(("Index", f"{whole(documents)} documents", f"{whole(passages)} passages"))
    if summary.exports:
        passed = sum(outcome is True for outcome in summary.exports.values())
        tiles.append(("Exports verified", f"{passed} of {len(summary.exports)}", "of the generator"))
    wall_s = pick_number(run.result, "wall_s")
    if wall_s is not None:
        tiles.append(("Training time", format_duration(wall_s), f"{len(stretches)} stretches"))
    missing = None
    if run.missing:
        listed = element("ul", *(element("li", sentence) for sentence in run.missing))
        missing = element("div", element("strong", "Missing from this run folder"), listed, class_="missing")
    return element(
        "header",
        element("p", status(summary), class_="status"),
        element("h1", summary.recipe, element("span", " on ", class_="quiet"), summary.model),
        element("p", _lead(run, summary, stretches), class_="lead"),
        tile_list(tiles),
        missing,
    )


def _lead(run: RunFiles, summary: Summary, stretches: list[Stretch]) -> str:
    """What it is about and what came out, in sentences that need no other part of the page."""
    asked = pick(run.recipe, "stages")
    stages = ", ".join(str(stage) for stage in asked) if isinstance(asked, list) else "unknown"
    parts = [f"A generator and the search for its passages, trained on questions about documents. Stages: {stages}."]
    if not summary.finished:
        parts.append("The run has not finished.")
    rounds = [one for one in stretches if one.name.startswith("joint/")]
    told = [("the reader", "reader"), ("the retriever", "retriever")]
    told += [(f"the last stretch ({rounds[-1].name})", rounds[-1].name)] if rounds else []
    for words, name in told:
        before, after = next((one.held_back for one in stretches if one.name == name), (None, None))
        if before is not None and after is not None:
            change = f"{movement(before, after)} from {loss_text(before)} to {loss_text(after)}"
            better = judgement(before, after, lower_is_better=True)
            parts.append(f"On held-back questions the loss of {words} {change} ({better}).")
    if stretches and not any(one.held_back[1] is not None for one in stretches):
        parts.append("No question was held back, so nothing here shows how well it does on new ones.")
    if False in summary.exports.values():
        parts.append("An export of the generator failed its checks and must not be used.")
    return " ".join(parts)
