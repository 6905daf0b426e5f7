"""The part of the page that accounts for every check of an export."""

from __future__ import annotations

import re
from typing import Any

from ftkit.report.markup import Markup, element, join, mark, note, section, table
from ftkit.report.numbers import number, pick, plain
from ftkit.report.read import RunFiles
from ftkit.report.summary import export_kinds, export_passed, reported_export

CHECKS = {
    "files": "Every file is there, byte for byte as it was written",
    "base": "The base model is the one that was trained on",
    "loads": "Loads in a fresh process with transformers and PEFT alone, offline",
    "tokenizer": "Turns text into the same tokens as in training",
    "chat_template": "Renders conversations as in training and stops where answers end",
    "logits_match_trained": "Predicts what the trained model predicts",
    "differs_from_base": "Holds the training: far from the base, close to the trained model",
    "prompt_tokens_never_sampled": "The soft prompt's own tokens are less likely than any other",
    "greedy_text_match": "Writes the same text as the trained model",
}
# Every other limit is an upper one.
AT_LEAST = {"top1_agreement"}
_DIGEST = re.compile("[0-9a-f]{64}")


def exports(run: RunFiles) -> Markup:
    """Each artefact and what was proven about it."""
    kinds = export_kinds(run)
    if not kinds:
        return section("exports", "Exports", note("Nothing was exported."))
    return section("exports", "Exports", *(_export(run, kind) for kind in kinds))


def _export(run: RunFiles, kind: str) -> Markup:
    reported, passed = reported_export(run, kind), export_passed(run, kind)
    written = kind in run.verifications or bool(reported)
    unproven = element("span", "● not verified" if written else "● not written", class_="open")
    verdict = unproven if passed is None else mark(passed)
    facts = [str(reported[key]) for key in ("dtype", "path") if reported.get(key)]
    title = element("h3", kind, " ", verdict)
    listed = pick(run.verifications.get(kind), "checks")
    checks = [check for check in listed if isinstance(check, dict)] if isinstance(listed, list) else []
    if checks:
        body = table(
            ["Check", "Outcome", "Measured", "Limit", "Detail"],
            [_check_row(check) for check in checks],
            class_="checks",
        )
    elif not written:
        body = note("The recipe asks for it, but it was not written.")
    else:
        body = note("Its checks are not in the run folder.")
    return element("article", title, note(" · ".join(facts)) if facts else None, body)


def _check_row(check: dict[str, Any]) -> list[str]:
    name = str(check.get("name", ""))
    meaning = CHECKS.get(name)
    title = join(meaning or name, element("div", name, class_="quiet code") if meaning else None)
    value, limit = check.get("value"), check.get("limit")
    same = isinstance(value, str) and value == limit
    return [
        title,
        mark(check.get("passed") is True),
        value_text(value),
        element("span", "the same", class_="quiet") if same else _limit(limit),
        str(check.get("detail") or ""),
    ]


def _limit(limit: Any) -> str:
    """Limits with their direction, so that nobody has to know whether more is better."""
    if not isinstance(limit, dict):
        return value_text(limit)
    return value_text({f"{key} {'≥' if key in AT_LEAST else '≤'}": value for key, value in limit.items()})


def value_text(value: Any) -> str:
    """A measured value: numbers short, digests by their beginning, mappings a line an entry."""
    if value is None:
        return ""
    if isinstance(value, dict):
        lines = (
            join(element("span", str(key).replace("_", " "), " ", class_="quiet"), value_text(inner))
            for key, inner in value.items()
        )
        return join(*(element("div", line, class_="entry") for line in lines))
    if (as_number := number(value)) is not None:
        return plain(as_number)
    text = str(value)
    if _DIGEST.fullmatch(text):
        return element("code", text[:12] + "…", title=text)
    return text
