"""The part of the page about the data: rows accounted for, lengths, sources, repeats, faults, and rows as trained.

Whatever an older or damaged report lacks is left out; nothing of it is trusted to have the right type.
"""

from __future__ import annotations

from typing import Any

from ftkit.report.markup import Markup, element, join, mark, note, section, table
from ftkit.report.numbers import NONE, number, percent, pick_number, plain, whole
from ftkit.report.read import RunFiles
from ftkit.report.svg import bar_chart, share_bar
from ftkit.report.tables import value_text

LENGTHS = {"min": "shortest", "p50": "median", "mean": "mean", "p90": "90th percentile", "p95": "95th percentile",
           "p99": "99th percentile", "max": "longest"}  # fmt: skip
MAX_FINDINGS = 5  # of each kind
MAX_EXAMPLES = 8


def data(run: RunFiles) -> Markup:
    """What happened to every row, and what the rows are like."""
    report = run.data
    if report is None:
        return section("data", "Data", note("There is no data report."))
    longest = pick_number(run.recipe, "data", "max_length")
    return section(
        "data", "Data",
        _account(report), _remarks(report),
        element("h3", "Tokens"), _supervised_bar(report), _token_table(report),
        _histogram(_entries(report, "histogram")), _length_table(_mapping(report, "lengths"), longest),
        _limits(report),
        _mixture(_entries(report, "mixture")), _answers(_mapping(report, "answers")),
        _pairs("Rows that repeat an earlier one", _entries(report, "duplicate_examples")),
        _pairs("Held-back rows that are also trained on", _entries(report, "leak_examples")),
        _lint(_mapping(report, "lint")),
        _examples(_entries(report, "examples")),
        element("h3", "Files"), _file_table(_entries(report, "files")),
    )  # fmt: skip


def _mapping(report: dict[str, Any], key: str) -> dict[str, Any]:
    value = report.get(key)
    return value if isinstance(value, dict) else {}


def _entries(report: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = report.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


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
    near, near_leaks = pick_number(report, "near_duplicates"), pick_number(report, "near_leaks")
    items = [
        ("rows cut to the longest length allowed; the rest of them was not learnt", truncated),
        ("training rows repeat an earlier one", duplicates),
        ("training rows nearly repeat an earlier one", near),
        ("validation rows are also trained on, which makes validation look too good", leaks),
        ("validation rows are nearly the same as rows that are trained on", near_leaks),
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


def _length_table(lengths: dict[str, Any], max_length: float | None) -> Markup | None:
    known = {name: value for key, name in LENGTHS.items() if (value := pick_number(lengths, key)) is not None}
    if not known:
        return None
    head, cells = ["Tokens a row", *known], [plain(value) for value in known.values()]
    if max_length is not None:
        head, cells = [*head, "allowed"], [*cells, plain(max_length)]
    return table(head, [["training rows", *cells]], numeric=tuple(range(1, len(head))), class_="narrow")


def _file_table(entries: list[dict[str, Any]]) -> Markup:
    if not entries:
        return note("No files are listed.")
    rows = [
        [value_text(entry.get("path")), value_text(entry.get("format")), whole(pick_number(entry, "rows")),
         value_text(entry.get("sha256"))]
        for entry in entries
    ]  # fmt: skip
    return table(["file", "format", "rows", "SHA-256"], rows, numeric=(2,))


def _supervised_bar(report: dict[str, Any]) -> Markup | None:
    tokens, supervised = pick_number(report, "tokens"), pick_number(report, "supervised_tokens")
    if not tokens or supervised is None or not 0 <= supervised <= tokens:
        return None
    words = f"{percent(supervised / tokens)} of the tokens count towards the loss"
    keys = element(
        "p",
        element("span", "learnt from", class_="swatch part-supervised"), "  ",
        element("span", "context only", class_="swatch part-context"),
        class_="legend",
    )  # fmt: skip
    bar = share_bar([(supervised, "part-supervised"), (tokens - supervised, "part-context")], title=words)
    return join(bar, keys)


def _histogram(entries: list[dict[str, Any]]) -> Markup | None:
    bars = []
    for entry in entries:
        start, end, count = (number(entry.get(key)) for key in ("from", "to", "sequences"))
        if start is not None and end is not None and count is not None and count >= 0:
            bars.append((whole(start), count, f"{whole(start)} to {whole(end)} tokens: {whole(count)} sequences"))
    if not bars:
        return None
    fullest = max(bars, key=lambda bar: bar[1])[2]
    title = f"Sequences by length in tokens; most of all with {fullest}"
    chart = bar_chart(bars, title=title, size=(1040, 240), x_title="tokens in a sequence, from")
    return element("div", chart, class_="scroll")


def _limits(report: dict[str, Any]) -> Markup | None:
    over = {str(limit): count for limit, value in _mapping(report, "over_max_length").items()
            if (count := number(value)) is not None}  # fmt: skip
    rows = pick_number(report, "rows_in")
    if not over or not rows:
        return None
    cells = [f"{whole(count)} ({percent(count / rows)})" for count in over.values()]
    return table(["A max_length of", *over], [["would cut", *cells]], numeric=tuple(range(1, len(over) + 1)),
                 class_="narrow")  # fmt: skip


def _mixture(lines: list[dict[str, Any]]) -> Markup | None:
    if len(lines) < 2:
        return None
    rows = [
        [
            str(line.get("source", "")),
            *(whole(pick_number(line, key)) for key in ("rows", "tokens", "supervised_tokens")),
            *(percent(pick_number(line, key)) for key in ("row_share", "token_share")),
        ]
        for line in lines
    ]
    head = ["source", "rows", "tokens", "of these learnt from", "share of rows", "share of tokens"]
    return join(element("h3", "Sources of an epoch"), table(head, rows, numeric=(1, 2, 3, 4, 5)))


def _answers(answers: dict[str, Any]) -> Markup | None:
    repeated = [entry for entry in _entries(answers, "top") if (pick_number(entry, "rows") or 0) > 1]
    distinct = pick_number(answers, "distinct")
    if distinct is None:
        return None
    more = "More than " if answers.get("more") is True else ""
    rows = [
        [_text(entry.get("text")), whole(pick_number(entry, "rows")), percent(pick_number(entry, "share"))]
        for entry in repeated
    ]
    listed = table(["answer", "rows", "share"], rows, numeric=(1, 2), class_="narrow") if rows else None
    folded = element("details", element("summary", "The most frequent"), listed) if listed else None
    return join(element("h3", "Answers"), note(f"{more}{whole(distinct)} different answers."), folded)


def _pairs(title: str, examples: list[dict[str, Any]]) -> Markup | None:
    if not examples:
        return None
    rows = []
    for example in examples[:MAX_EXAMPLES]:
        places = example.get("places")
        shown = " = ".join(map(str, places)) if isinstance(places, list) else ""
        rows.append([shown, percent(pick_number(example, "similarity")), _text(example.get("text"))])
    return join(element("h3", title), table(["rows", "alike", "text"], rows, numeric=(1,)))


def _lint(lint: dict[str, Any]) -> Markup | None:
    counts = {str(code): findings for code, value in _mapping(lint, "counts").items()
              if (findings := number(value)) is not None}  # fmt: skip
    if not counts:
        return None
    rows = []
    for code, count in counts.items():
        found = [finding for finding in _entries(lint, "findings") if finding.get("code") == code][:MAX_FINDINGS]
        lines = (element("div", f"{finding.get('where', '')}: {finding.get('detail', '')}") for finding in found)
        rows.append([code, whole(count), join(*lines)])
    return join(
        element("h3", "Suspicious rows"),
        note("Legal, and trained on as they are; `ftkit data FILE lint` says what each means and lists them."),
        table(["what", "findings", "for example"], rows, numeric=(1,)),
    )


def _examples(examples: list[dict[str, Any]]) -> Markup | None:
    if not examples:
        return None
    shown = [
        element(
            "div",
            element("div", str(example.get("place", "")), class_="quiet code"),
            element("div", *map(_piece, _entries(example, "pieces")), class_="text", dir="auto", tabindex="0"),
            class_="row",
        )
        for example in examples[:MAX_EXAMPLES]
    ]
    return join(
        element("h3", "Rows as the model sees them"),
        note("What is learnt from is green and underlined, with the token that ends an answer; the rest is context."),
        *shown,
    )


def _piece(piece: dict[str, Any]) -> Markup:
    supervised = piece.get("supervised") is True
    parts = str(piece.get("text", "")).split("\n")
    # Line breaks are tokens too, and at the end of a piece they could not be seen.
    ending = join(element("span", "⏎", class_="break"), "\n")
    lines = [join(part, ending) for part in parts[:-1]] + [join(parts[-1])]
    return element("span", *lines, class_="supervised" if supervised else "context")


def _text(text: Any) -> Markup:
    shown = "" if text is None else str(text)
    body = element("span", "(empty)", class_="quiet") if not shown.strip() else shown
    return element("div", body, class_="text", dir="auto", tabindex="0")
