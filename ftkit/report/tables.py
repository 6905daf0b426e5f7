"""The parts of the page that account for things: every row of data, every check of an export."""

from __future__ import annotations

import re
from typing import Any

from ftkit.report.markup import Markup, element, join, mark, note, section, table
from ftkit.report.numbers import NONE, number, percent, pick, pick_number, plain, whole
from ftkit.report.read import RunFiles
from ftkit.report.summary import export_kinds, export_passed, reported_export
from ftkit.report.svg import share_bar

CHECKS = {
    "files": "Every file is there, byte for byte as it was written",
    "base": "The base model is the one that was trained on",
    "loads": "Loads in a fresh process with transformers and PEFT alone, offline",
    "tokenizer": "Turns text into the same tokens as in training",
    "chat_template": "Renders conversations as in training and stops where answers end",
    "logits_match_trained": "Predicts what the trained model predicts",
    "differs_from_base": "Holds the training: far from the base, close to the trained model",
    "greedy_text_match": "Writes the same text as the trained model",
}
# Every other limit is an upper one.
AT_LEAST = {"top1_agreement"}
_DIGEST = re.compile("[0-9a-f]{64}")


def data(run: RunFiles) -> Markup:
    """What happened to every row, and what the rows are like."""
    report = run.data
    if report is None:
        return section("data", "Data", note("There is no data report."))
    lengths, longest = report.get("lengths"), pick_number(run.recipe, "data", "max_length")
    return section(
        "data", "Data",
        _account(report), _remarks(report), element("h3", "Tokens"), _token_table(report),
        _length_table(lengths, longest) if isinstance(lengths, dict) else None,
        element("h3", "Files"), _file_table(report.get("files")),
    )  # fmt: skip


def _account(report: dict[str, Any]) -> Markup:
    rows_in = pick_number(report, "rows_in")
    reasons = report.get("dropped")
    dropped = (
        {str(reason): number(count) or 0 for reason, count in reasons.items()} if isinstance(reasons, dict) else {}
    )
    entries = [
        ("trained on", pick_number(report, "trained") or 0, "part-trained"),
        ("kept for validation", pick_number(report, "validation") or 0, "part-validation"),
        *((f"dropped: {reason}", count, "part-dropped") for reason, count in dropped.items()),
    ]
    total = sum(count for _, count, _ in entries)
    rows = [
        [element("span", name, class_=f"swatch {style}"), whole(count), percent(count / total) if total else NONE]
        for name, count, style in entries
    ]
    rows.append([element("strong", "rows read"), element("strong", whole(rows_in)), _sum_verdict(rows_in, total)])
    bar = share_bar([(count, style) for _, count, style in entries], title="Shares of the rows") if total else None
    return join(bar, table(["Every row", "rows", "share"], rows, numeric=(1, 2), class_="narrow"))


def _sum_verdict(rows_in: float | None, total: float) -> Markup:
    if rows_in is None:
        return mark(False, "not reported")
    if rows_in == total:
        return mark(True, "adds up")
    gap = rows_in - total
    return mark(False, f"{whole(abs(gap))} {'unaccounted for' if gap > 0 else 'too many'}")


def _remarks(report: dict[str, Any]) -> Markup:
    truncated, duplicates, leaks = (pick_number(report, key) for key in ("truncated", "duplicates", "leaks"))
    items = [
        ("rows cut to the longest length allowed; the rest of them was not learnt", truncated),
        ("training rows repeat an earlier one", duplicates),
        ("validation rows are also trained on, which makes validation look too good", leaks),
    ]
    lines = [
        element("li", element("strong", whole(count)), f" {words}", class_="warn" if count else None)
        for words, count in items
        if count is not None
    ]
    return element("ul", *lines, class_="remarks")


def _token_table(report: dict[str, Any]) -> Markup:
    tokens, supervised = pick_number(report, "tokens"), pick_number(report, "supervised_tokens")
    share = percent(supervised / tokens) if supervised is not None and tokens else NONE
    stops = report.get("stop_tokens")
    shown = [element("code", str(stop)) for stop in stops] if isinstance(stops, list) else []
    template = "yes" if report.get("chat_template") is True else "no"
    rows: list[list[str]] = [
        ["tokens in training rows", whole(tokens)],
        ["of these, learnt from (supervised)", f"{whole(supervised)} ({share})"],
        ["tokens that end an answer", join(*(join(code, " ") for code in shown)) if shown else "none"],
        ["rendered by a chat template", template],
    ]
    return table(["", ""], rows, class_="narrow bare")


def _length_table(lengths: dict[str, Any], max_length: float | None) -> Markup:
    names = {"min": "shortest", "p50": "median", "mean": "mean", "p95": "95th percentile", "max": "longest"}
    cells = [plain(value) if (value := pick_number(lengths, key)) is not None else NONE for key in names]
    head = ["Tokens a row", *names.values()]
    if max_length is not None:
        head, cells = [*head, "allowed"], [*cells, plain(max_length)]
    return table(head, [["training rows", *cells]], numeric=tuple(range(1, len(head))), class_="narrow")


def _file_table(files: Any) -> Markup:
    entries = [entry for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []
    if not entries:
        return note("No files are listed.")
    rows = [
        [_value(entry.get("path")), _value(entry.get("format")), whole(pick_number(entry, "rows")),
         _value(entry.get("sha256"))]
        for entry in entries
    ]  # fmt: skip
    return table(["file", "format", "rows", "SHA-256"], rows, numeric=(2,))


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
        _value(value),
        element("span", "the same", class_="quiet") if same else _limit(limit),
        str(check.get("detail") or ""),
    ]


def _limit(limit: Any) -> str:
    """Limits with their direction, so that nobody has to know whether more is better."""
    if not isinstance(limit, dict):
        return _value(limit)
    return _value({f"{key} {'≥' if key in AT_LEAST else '≤'}": value for key, value in limit.items()})


def _value(value: Any) -> str:
    """A measured value: numbers short, digests by their beginning, mappings a line an entry."""
    if value is None:
        return ""
    if isinstance(value, dict):
        lines = (
            join(element("span", str(key).replace("_", " "), " ", class_="quiet"), _value(inner))
            for key, inner in value.items()
        )
        return join(*(element("div", line, class_="entry") for line in lines))
    if (as_number := number(value)) is not None:
        return plain(as_number)
    text = str(value)
    if _DIGEST.fullmatch(text):
        return element("code", text[:12] + "…", title=text)
    return text
