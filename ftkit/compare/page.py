"""comparison.html: one self-contained page for whoever decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftkit.compare.document import (
    COST_HEAD,
    TABLE,
    TEST_HEAD,
    cost_rows,
    scale_text,
    table_rows,
    test_rows,
)
from ftkit.compare.page_parts import (
    behaviour_section,
    claims_section,
    curves_section,
    forgetting_section,
    lifecycle_section,
    staged_section,
    updates_section,
)
from ftkit.files import write_text
from ftkit.report.intervals import IntervalBar, cost_chart, interval_chart
from ftkit.report.markup import Markup, element, note, section, table
from ftkit.report.page import whole_page

PAGE = "comparison.html"
CHARTS = (
    ("exact_match", "Exact match: share of answers that are right word for word; further right is better"),
    ("nll", "Nats a token of the right answer: how surprised the system is by it; further left is better"),
    ("answer_recall_at_1", "Answer recall@1: share of questions whose first passage states the answer"),
    ("recall_at_5", "Recall@5: share of questions whose document is among the first five; further right is better"),
)


def write_comparison_page(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page; it is one file and needs no network."""
    systems = document["systems"]
    title = f"{len(systems)} systems on {document['scale']['test_questions']} questions"
    waiting = document["waiting"]
    lead = scale_text(document["scale"])
    if waiting:
        lead += f" Not measured yet: {', '.join(waiting)}."
    main = element(
        "main",
        element("header", element("h1", title), element("p", lead, class_="lead")),
        claims_section(document),
        _quality(document),
        _tests(document) if document["tests"] or not document["claims"] else None,
        staged_section(document),
        behaviour_section(document),
        forgetting_section(document),
        curves_section(document),
        updates_section(document),
        _cost(document),
        lifecycle_section(document),
    )
    write_text(path, whole_page(title, main))


def _quality(document: Mapping[str, Any]) -> Markup:
    charts: list[str | None] = []
    for name, words in CHARTS:
        bars = [_bar(system, figures[name]) for system, figures in document["systems"].items() if name in figures]
        if bars:
            charts += [interval_chart(bars, title=words), note(words)]
    return section(
        "quality",
        "Quality",
        *charts,
        table(["system", *map(_heading, TABLE)], _figures(document), numeric=tuple(range(1, len(TABLE) + 1))),
        note(
            "Below each value its 95 % interval, of 10,000 resamples of whole documents. risk: share of wrong "
            "answers among those given, to be read beside coverage; at equal coverage where all give their surest "
            "ones alone. A dash: the system has no such figure."
        ),
    )


def _heading(name: str) -> str:
    """A figure in words, short enough for a column."""
    words = {"nll": "nats a token", "f1": "F1", "risk_at_equal_coverage": "risk, equal coverage"}
    return words.get(name, name.replace("_at_", "@").replace("_", " "))


def _figures(document: Mapping[str, Any]) -> list[list[str | Markup]]:
    """Each value with its interval below it."""
    return [[name, *map(_figure, cells)] for name, *cells in table_rows(document)]


def _figure(text: str) -> Markup:
    value, _, between = text.partition(" (")
    return element("span", value, element("span", between.rstrip(")"), class_="between") if between else None)


def _bar(name: str, figure: Mapping[str, Any]) -> IntervalBar:
    return IntervalBar(name=name, value=figure["value"], low=figure["low"], high=figure["high"])


def _tests(document: Mapping[str, Any]) -> Markup:
    rows = test_rows(document)
    if not rows:
        return section("tests", "What was tested", note("Nothing was asked for."))
    return section(
        "tests",
        "What was tested",
        table(list(TEST_HEAD), rows, numeric=(2, 3, 4, 5)),
        note(
            "Written down before the run; paired over the same questions, p-values corrected by Holm's method for "
            "all of them together. Undetermined: the difference may be chance at this number of questions."
        ),
    )


def _cost(document: Mapping[str, Any]) -> Markup:
    points = [
        (name, figures["training_flops"]["value"] / 1e12, figures["nll"])
        for name, figures in document["systems"].items()
        if "training_flops" in figures and "nll" in figures
    ]
    chart = (
        cost_chart(
            [(_bar(name, nll), cost) for name, cost, nll in points],
            title="Nats a token of the right answer over training operations",
            x_title="training, TFLOP (10^12 operations)",
            y_title="nats a token",
            lower_is_better=True,
            apart=[name for name, one in document["settings"]["systems"].items() if one["retrieval"] == "oracle"],
        )
        if points
        else None
    )
    return section(
        "cost",
        "Cost",
        chart,
        note("Joined: what nothing else beats in both; lower and further left is better. The oracle is not for sale.")
        if points
        else None,
        table(list(COST_HEAD), cost_rows(document), numeric=tuple(range(1, len(COST_HEAD)))),
        note("Answering: the median of one question at a time. To ship: beside base model, base encoder and index."),
    )
