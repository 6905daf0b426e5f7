"""report.html of a hybrid: what each member is worth, and what choosing between them is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.files import write_text
from ftkit.report.markup import Markup, element, section, table
from ftkit.report.numbers import NONE
from ftkit.report.page import whole_page

PAGE = "report.html"


def write_hybrid_page(folder: Path, result: dict[str, Any]) -> Path:
    """Write the page; it is one file and needs no network."""
    title = f"Router between {', '.join(result['members'])}: report"
    main = element(
        "main",
        element("header", element("h1", title), element("p", _capital(result["because"]), class_="lead")),
        section("members", "Members on the dev questions", _members(result["members"])),
        section(
            "cross-validation",
            f"Choosing, by cross-validation in {result['cross_validation']['folds']} folds of whole documents",
            _standing(result["cross_validation"]),
        ),
        _validation(result["validation"]),
    )
    write_text(folder / PAGE, whole_page(title, main))
    return folder / PAGE


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
