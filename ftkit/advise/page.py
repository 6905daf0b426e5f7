"""An advice on one page, and the same as text."""

from __future__ import annotations

from pathlib import Path

from ftkit.advise.advice import UNDETERMINED, Advice
from ftkit.advise.options import CRITERIA, OPTIONS
from ftkit.advise.ranking import ENOUGH
from ftkit.files import write_text
from ftkit.report.intervals import IntervalBar, interval_chart
from ftkit.report.markup import Markup, element, note, section, table
from ftkit.report.page import whole_page

SOURCES = "V: veto by rule. R: rule. L: literature. M: your own measurement. S: switch point. P: the ranking."


def advice_text(advice: Advice) -> str:
    """For a terminal."""
    lines = [_headline(advice), ""]
    lines += ["Because"] + [f"  {one.text} [{one.id}]" for one in advice.because]
    if advice.eliminated:
        lines += ["", "Not"] + [f"  {option}: {one.text} [{one.id}]" for option, one in advice.eliminated]
    if advice.would_change_if:
        lines += ["", "Another choice"] + [f"  {one.text} [{one.id}]" for one in advice.would_change_if]
    lines += ["", "Next"] + [f"  {one}" for one in advice.next]
    return "\n".join([*lines, "", SOURCES])


def write_advice_page(path: Path, advice: Advice) -> None:
    """Write the page; it is one file and needs no network."""
    title = _headline(advice)
    main = element(
        "main",
        element("header", element("h1", title), element("p", _evidence(advice), class_="lead")),
        _reasons(advice),
        _shares(advice),
        _scores(advice),
        section("next", "Next", element("pre", "\n".join(advice.next))),
    )
    write_text(path, whole_page(title, main))


def _headline(advice: Advice) -> str:
    second = f"; next best: {advice.runner_up}" if advice.runner_up else ""
    if advice.choice == UNDETERMINED:
        likeliest = (
            f" (likeliest: {advice.ranking.order[0]}, {advice.confidence:.0%})" if advice.ranking.shares else ""
        )
        return f"Undetermined{likeliest}"
    if advice.ranking.is_first_step:
        return f"rag, {advice.confidence:.0%} sure of retrieval; whether its reader is worth training is open"
    if len(advice.ranking.shares) == 1:
        return f"{advice.choice}; nothing else is left"
    return f"{advice.choice}, {advice.confidence:.0%} sure{second}"


def _evidence(advice: Advice) -> str:
    if not advice.evidence.systems:
        return "From rules and literature alone; nothing was measured on your own data."
    named = ", ".join(f"{option} by {name}" for option, name in advice.evidence.systems.items())
    return f"Measured: {named}. {advice.evidence.scale}"


def _reasons(advice: Advice) -> Markup:
    parts: list[str | None] = [table(["because", "source"], [(one.text, one.id) for one in advice.because])]
    if advice.eliminated:
        rows = [(option, one.text, one.id) for option, one in advice.eliminated]
        parts.append(table(["fell", "why", "source"], rows))
    if advice.would_change_if:
        rows_of = [(one.text, one.id) for one in advice.would_change_if]
        parts.append(table(["another choice", "source"], rows_of))
    return section("why", "Why", *parts, note(SOURCES))


def _shares(advice: Advice) -> Markup:
    shares = advice.ranking.shares
    if len(shares) < 2:
        left = f"{advice.ranking.order[0]} alone" if shares else "no option"
        return section("shares", "How sure", note(f"Of all options {left} is left; nothing was drawn against it."))
    bars = [
        IntervalBar(name=option, value=shares[option], low=0.0, high=shares[option])
        for option in advice.ranking.order
    ]
    words = (
        "Share of draws that each option wins when utilities and weights are drawn anew within what is uncertain of "
        f"them. {ENOUGH:.0%} are asked for; below, the answer is undetermined."
    )
    return section("shares", "How sure", interval_chart(bars, title="Share of draws won"), note(words))


def _scores(advice: Advice) -> Markup:
    ranking = advice.ranking
    rows = [
        (
            option if option in ranking.shares else f"{option} (out)",
            *(
                f"{ranking.utilities[option][key].mean:.2f} ± {ranking.utilities[option][key].deviation:.2f}"
                for key in CRITERIA
            ),
        )
        for option in (*ranking.order, *(one for one in OPTIONS if one not in ranking.shares))
    ]
    weights = ("weight", *(f"{ranking.weights[key]:g}" for key in CRITERIA))
    return section(
        "scores",
        "What it rests on",
        table(["", *CRITERIA], [weights, *rows], numeric=tuple(range(1, len(CRITERIA) + 1))),
        note("From 0 to 1, with one standard deviation. Measured where that was done, else by rules and papers."),
    )
