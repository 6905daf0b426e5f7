"""One page about an evaluation: its figures, which step loses answers, and what a threshold would buy."""

from __future__ import annotations

from pathlib import Path

from ftkit.files import write_text
from ftkit.rag.blame import BLAMES, Blame
from ftkit.rag.evaluation import Evaluation
from ftkit.report.markup import Markup, element, note, section, table
from ftkit.report.numbers import NONE
from ftkit.report.page import whole_page
from ftkit.report.svg import Series, share_bar, share_chart

MEANINGS: dict[Blame, str] = {
    "correct": "right, or rightly not answered",
    "not_indexed": "the answer stands in no passage of the documents that it needs",
    "not_retrieved": "it is in the index; the reader was not given it",
    "not_read": "the reader was given it, and abstained or took something else from the passages",
    "unsupported": "invented: it stands in no passage, or no document answers the question",
}
STYLES: dict[Blame, str] = {
    "correct": "part-supervised", "not_indexed": "part-dropped", "not_retrieved": "part-trained",
    "not_read": "part-validation", "unsupported": "part-invented",
}  # fmt: skip
MAX_WRONG = 200


def write_evaluation_page(path: Path, evaluation: Evaluation) -> None:
    """Write the page; it is one file and needs no network."""
    settings = evaluation.settings
    title = f"{settings.get('index', settings.get('hybrid'))}: {len(evaluation.outcomes)} questions"
    if "routes" in settings:
        facts = f"Answered by {', '.join(f'{name} ({count})' for name, count in settings['routes'].items())}."
    else:
        facts = (
            f"Version {settings['version']} of the index, generator {settings['generator']}, search "
            f"{settings['mode']}, at most {settings['passages']} passages given."
        )
    main = element(
        "main",
        element("header", element("h1", title), element("p", facts, class_="lead")),
        _figures(evaluation),
        _blame(evaluation),
        _curve(evaluation),
        _wrong(evaluation),
    )
    write_text(path, whole_page(title, main))


def figure_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval of each figure, as text; classes of blame are told by themselves."""
    rows = []
    for name, value in evaluation.values.items():
        if not name.startswith("blame_percent."):
            between = evaluation.intervals[name]
            low_high = NONE if between is None else f"{between[0]:.3f} to {between[1]:.3f}"
            rows.append((name, NONE if value is None else f"{value:.3f}", low_high))
    return rows


def blame_rows(evaluation: Evaluation) -> list[tuple[Blame, str, str, str]]:
    """Class, questions, percent and 95 % interval of the percent, as text."""
    rows = []
    for name in BLAMES:
        percent, between = evaluation.values[f"blame_percent.{name}"], evaluation.intervals[f"blame_percent.{name}"]
        assert percent is not None, "there is a question"
        low_high = NONE if between is None else f"{between[0]:.1f} to {between[1]:.1f}"
        rows.append((name, str(evaluation.blame[name]), f"{percent:.1f}", low_high))
    return rows


def _figures(evaluation: Evaluation) -> Markup:
    return section(
        "figures",
        "Figures",
        table(["figure", "value", "95 % interval"], figure_rows(evaluation), numeric=(1, 2)),
        note("Intervals are of 10,000 resamples of whole documents with all their questions. nll: nats a token."),
    )


def _blame(evaluation: Evaluation) -> Markup:
    blamed = evaluation.blame
    bar = share_bar([(blamed[name], STYLES[name]) for name in BLAMES], title="Questions by the step that lost them")
    rows = [
        (element("span", name, class_=f"swatch {STYLES[name]}"), *rest, MEANINGS[name])
        for name, *rest in blame_rows(evaluation)
    ]
    head = ["step", "questions", "%", "95 % interval", "meaning"]
    return section("blame", "What loses answers", bar, table(head, rows, numeric=(1, 2, 3)))


def _curve(evaluation: Evaluation) -> Markup:
    curve = evaluation.curve
    if not curve:
        return section("risk", "Risk and coverage", note("There is no confidence to draw it from."))
    lines = [Series(name="risk", points=[(point.coverage, point.risk) for point in curve], style="training")]
    applied = [point for point in curve if evaluation.threshold is not None]
    applied = [point for point in applied if point.threshold >= (evaluation.threshold or 0.0)][-1:]
    if applied:
        point = (applied[0].coverage, applied[0].risk)
        lines.append(Series(name="threshold", points=[point], style="validation", markers=True))
    chart = share_chart(
        lines, title="Risk over coverage", size=(720, 320), x_title="coverage: share of questions answered"
    )
    area = evaluation.values["risk_coverage_area"]
    words = f"Risk: share of wrong answers among those given. Mean over the coverages: {area:.3f}. "
    if evaluation.threshold is None:
        words += "No threshold is set."
    else:
        words += f"The threshold {evaluation.threshold:.4f} is marked."
    return section("risk", "Risk and coverage", chart, note(words))


def _wrong(evaluation: Evaluation) -> Markup:
    wrong = [outcome for outcome in evaluation.outcomes if not outcome.right]
    rows = [
        (
            outcome.question.question,
            outcome.blame,
            " | ".join(outcome.question.answers) or NONE,
            "(abstained)" if outcome.text is None else outcome.text,
        )
        for outcome in wrong[:MAX_WRONG]
    ]
    if not rows:
        return section("wrong", "Wrong answers", note("There is none."))
    left_out = len(wrong) - len(rows)
    more = note(f"{left_out} more are in the saved evaluation.") if left_out else None
    return section("wrong", "Wrong answers", table(["question", "step", "right", "given"], rows), more)
