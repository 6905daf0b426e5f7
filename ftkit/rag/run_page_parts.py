"""The parts of a RAG run's page that no other run has: its stretches, its questions, its index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.errors import FtkitError
from ftkit.rag.index import Index
from ftkit.rag.stretches import Stretch, seconds_of
from ftkit.report.markup import Markup, element, join, note, section, table
from ftkit.report.numbers import NONE, judgement, loss_text, number, percent, pick_number, whole
from ftkit.report.read import RunFiles
from ftkit.report.svg import Series, line_chart, share_bar
from ftkit.units import format_count, format_duration

INDEX = "index"
SIDES = {"train": "To train on", "validation": "Held back"}
FATES = {
    "with_gold": ("read with the passage that holds the answer", "part-supervised"),
    "without_gold": ("read without it, to be refused", "part-validation"),
    "unanswerable": ("no document answers it, to be refused", "part-trained"),
}
LEFT_OUT = "part-dropped"
NO_BREAK = "\N{NO-BREAK SPACE}"


def course(stretches: list[Stretch]) -> Markup:
    """Each stretch with what it took and what it changed."""
    if not stretches:
        return section("course", "Stages", note("No training has begun."))
    rows = []
    for one in stretches:
        first, last = (pick_number(one.result, key) for key in ("first_loss", "last_loss"))
        first = first if first is not None or not one.training else one.training[0][1]
        last = last if last is not None or not one.training else one.training[-1][1]
        before, after = one.held_back
        wall_s, tokens = seconds_of(one), pick_number(one.result, "tokens")
        rows.append(
            [
                join(element("code", one.name), element("div", one.learns, class_="quiet")),
                whole(pick_number(one.result, "steps")) if one.result else "not finished",
                NONE if tokens is None else format_count(tokens),
                _change(first, last),
                join(_change(before, after), _verdict(before, after)),
                NONE if wall_s is None else format_duration(wall_s).replace(" ", NO_BREAK),
            ]
        )
    head = ["stretch", "steps", "tokens", "training loss", "loss on held-back questions", "time"]
    return section(
        "course", "Stages",
        table(head, rows, numeric=(1, 2, 3, 4, 5)),
        note("Each stretch minimises its own loss, so losses compare within a line and not between lines. Tokens "
             "count as often as they are read, once for each passage of a question."),
    )  # fmt: skip


def _change(before: float | None, after: float | None) -> str:
    return f"{loss_text(before)} → {loss_text(after)}".replace(" ", NO_BREAK)


def _verdict(before: float | None, after: float | None) -> Markup | None:
    if before is None or after is None:
        return None
    words = judgement(before, after, lower_is_better=True)
    return element("div", words, class_="quiet")


def stretch_charts(stretches: list[Stretch]) -> Markup:
    """Training and held-back loss over the steps of each stretch."""
    figures = []
    for one in stretches:
        series = [
            Series(name="training", points=one.training, style="training"),
            Series(name="held back", points=one.validation, style="validation", markers=True),
        ]
        if not any(line.points for line in series):
            continue
        chart = line_chart(series, title=f"Loss of {one.name} over its steps", size=(510, 240), y_text=loss_text)
        figures.append(element("figure", element("figcaption", one.name), chart, note(one.unit)))
    if not figures:
        return section("curves", "Loss", note("No losses were logged."))
    keys = (
        element("span", "training", class_="key training"),
        element("span", "held-back questions", class_="key validation"),
    )
    return section(
        "curves", "Loss", element("p", *keys, class_="legend"), element("div", *figures, class_="pair"),
        note("Lower is better. Step 0 is what the stretch began with."),
    )  # fmt: skip


def questions(run: RunFiles) -> Markup:
    """What became of every question."""
    report = run.data
    if report is None:
        return section("data", "Questions", note("There is no data report: no reader was trained."))
    parts: list[Markup | None] = [_synthetic(report.get("synthetic"))]
    parts += [_side(title, report[name]) for name, title in SIDES.items() if isinstance(report.get(name), dict)]
    return section("data", "Questions", *parts)


def _side(title: str, counts: dict[str, Any]) -> Markup:
    asked = pick_number(counts, "questions")
    found = {str(key): count for key, value in counts.items()
             if key != "questions" and (count := number(value)) is not None and count >= 0}  # fmt: skip
    total = sum(found.values())
    order = [*(key for key in FATES if key in found), *(key for key in found if key not in FATES)]
    parts = [(found[key], FATES.get(key, ("", LEFT_OUT))[1]) for key in order]
    rows = []
    for key in order:
        words, style = FATES.get(key, (f"left out: {key}", LEFT_OUT))
        rows.append([element("span", words, class_=f"swatch {style}"), whole(found[key]), _share(found[key], total)])
    adds_up = "" if asked == total else f"{whole(total)} are accounted for"
    rows.append([element("strong", "questions"), element("strong", whole(asked)), adds_up])
    bar = share_bar(parts, title=f"{title}: what became of the questions") if total else None
    head = ["Every question", "questions", "share"]
    return join(element("h3", title), bar, table(head, rows, numeric=(1, 2), class_="narrow"))


def _share(count: float, total: float) -> str:
    return percent(count / total) if total else NONE


def _synthetic(report: Any) -> Markup | None:
    if not isinstance(report, dict):
        return None
    rows = [["kept", whole(pick_number(report, "kept"))]]
    dropped = report.get("dropped")
    for reason, count in dropped.items() if isinstance(dropped, dict) else ():
        rows.append([f"dropped: {reason}", whole(number(count))])
    rows.append([element("strong", "tried"), element("strong", whole(pick_number(report, "tried")))])
    without = report.get("unanswerable")
    if isinstance(without, dict) and without.get("made"):
        rows.append(["beside them, without an answer", whole(pick_number(without, "made"))])
    return join(
        element("h3", "Made from the corpus"),
        table(["Every try", "questions"], rows, numeric=(1,), class_="narrow"),
        note(
            "Kept are those that lead back to their answer; each try stands in questions/synthetic.jsonl.tries.jsonl."
        ),
    )


def index_part(folder: Path) -> Markup:
    """What is searched, and which models stand behind it."""
    try:
        with Index(folder / INDEX, read_only=True) as index:
            settings, version = index.settings, index.version
            counts = (len(index.documents), index.passages)
    except FtkitError as error:
        return section("index", "Index", note(f"It cannot be read: {error.problems[0].what}"))
    rows: list[list[str]] = [
        ["documents", whole(counts[0])],
        ["passages", whole(counts[1])],
        ["version", whole(version)],
        ["longest passage", f"{settings.passage_tokens} tokens, {settings.overlap_tokens} of them repeated"],
        ["numbers in a vector", whole(settings.width)],
        ["encoder of documents", element("code", settings.encoder)],
        ["encoder of questions", element("code", settings.query_encoder or settings.encoder)],
        ["generator", element("code", settings.generator)],
    ]
    asked = "Asked with: ftkit rag ask RUN --question ... Paths are seen from the index's folder."
    return section("index", "Index", table(["", ""], rows, class_="narrow bare"), note(asked))


def links(folder: Path) -> Markup | None:
    """Pages and files below the run that say more."""
    known = {
        "reader/report.html": "the reader's own run: its data row by row, learning rate, gradients",
        "data_report.json": "what became of every question, as figures",
        "questions/synthetic.jsonl": "the questions that were made from the corpus",
        "result.json": "all that was measured",
    }
    items = [
        element("li", element("a", path, href=path), f": {what}")
        for path, what in known.items()
        if (folder / path).is_file()
    ]
    return section("files", "More", element("ul", *items, class_="remarks")) if items else None
