"""report.html of a hybrid: what each member is worth, and what joining them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.files import write_text
from ftkit.report.markup import Markup, element, note, section, table
from ftkit.report.numbers import NONE
from ftkit.report.page import whole_page
from ftkit.report.svg import Series, line_chart, nth_style
from ftkit.units import format_bytes

PAGE = "report.html"


def write_hybrid_page(folder: Path, result: dict[str, Any]) -> Path:
    """Write the page; it is one file and needs no network."""
    title, sections = _router(result) if result["kind"] == "router" else _weighed(result)
    head = element("header", element("h1", title), element("p", _capital(result["because"]), class_="lead"))
    write_text(folder / PAGE, whole_page(title, element("main", head, *sections)))
    return folder / PAGE


def _router(result: dict[str, Any]) -> tuple[str, list[Markup | None]]:
    folds = result["cross_validation"]["folds"]
    return f"Router between {', '.join(result['members'])}: report", [
        section("members", "Members on the dev questions", _members(result["members"])),
        section(
            "cross-validation",
            f"Choosing, by cross-validation in {folds} folds of whole documents",
            _standing(result["cross_validation"]),
        ),
        _validation(result["validation"]),
    ]


def _weighed(result: dict[str, Any]) -> tuple[str, list[Markup | None]]:
    """Of a mixture or a memory."""
    first, second = result["halves"]
    choice, held = result["choice"], result["validation"]
    titles = {"mixture": f"Mixture of {first} and {second}: report", "memory": f"{first} with a memory: report"}
    together = f"together, weight {result['weight']:g}, temperature {result['temperature']:g}"
    sides = [("dev questions", result["dev"]), *([] if held is None else [("questions held back", held)])]
    names = [f"{first} alone", f"{second} alone", together]
    rows = [
        [name, *(_figure([*side["halves"], side["nll"]][place]) for _, side in sides)]
        for place, name in enumerate(names)
    ]
    counted = f"{choice['tokens']} tokens of {choice['questions']} dev answers"
    if held is not None:
        counted += f", {held['tokens']} of {held['questions']} that nothing learnt from"
    return titles[result["kind"]], [
        section(
            "halves",
            "Nats a token of the right answers",
            table(["who answers", *(name for name, _ in sides)], rows),
            note(f"Over {counted}. {NONE}: a token of them is ruled out."),
        ),
        section("curve", f"Nats a token of dev answers, by the weight of {second}", _curve(choice["curve"])),
        _memory(result.get("memory")),
    ]


def _curve(curve: list[dict[str, Any]]) -> Markup:
    """A line for each temperature; weights that rule a token out have no point."""
    start = [point for point in curve if point["weight"] == 0]
    lines = []
    for number, temperature in enumerate(sorted({point["temperature"] for point in curve})):
        own = [point for point in curve if point["weight"] > 0 and point["temperature"] == temperature]
        points = [(100 * one["weight"], one["nll"]) for one in [*start, *own] if one["nll"] is not None]
        lines.append(Series(name=f"temperature {temperature:g}", points=points, style=nth_style(number)))
    if not any(line.points for line in lines):
        return note("Every weight that was tried rules a token out.")
    return line_chart(
        lines,
        title="Nats a token by weight",
        size=(760, 300),
        y_text=lambda value: f"{value:.3f}",
        label_width=210,
        x_title="weight, percent",
    )


def _memory(found: dict[str, Any] | None) -> Markup | None:
    if found is None:
        return None
    rows = [
        ["texts", str(found["texts"])],
        ["answers", str(found["answers"])],
        ["tokens remembered", str(found["entries"])],
        ["on the disk", format_bytes(found["bytes"])],
    ]
    return section("memory", "What is remembered", table(["figure", "value"], rows))


def _members(members: dict[str, Any]) -> Markup:
    head = ["member", "token F1", "right", "nats a token of the right answer", "questions won", "prompt tokens"]
    rows = [
        [name, _figure(one["f1"]), _figure(one["right"]), _figure(one["nll"]), str(one["won"]),
         f"{one['prompt_tokens']:.0f}"]
        for name, one in members.items()
    ]  # fmt: skip
    return table(head, rows)


def _standing(found: dict[str, Any]) -> Markup:
    interval = found["interval"]
    rows = [
        ["token F1, routed", _figure(found["routed"])],
        ["token F1, best single member", _figure(found["best"])],
        ["token F1, each question by its best member", _figure(found["oracle"])],
        ["gain over the best single member", f"{found['difference']:+.3f}"],
        ["95 % interval of the gain", NONE if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"],
        ["sent to the member that won", _figure(found["accuracy"])],
        ["the same, all to the most frequent winner", _figure(found["majority"])],
        *([f"questions to {name}", str(count)] for name, count in found["routes"].items()),
    ]
    return table(["figure", "value"], rows)


def _validation(found: dict[str, Any] | None) -> Markup | None:
    if found is None:
        return None
    return section("validation", "Questions that nothing learnt from", _members(found["members"]), _standing(found))


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}."
