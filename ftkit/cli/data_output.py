"""How ``ftkit data`` prints: plain columns, bars in proportion to the terminal, and rows with their masks."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftkit.units import format_count

NARROWEST = 40
COUNTS = "bold green underline"
TOP_ANSWERS = 10
EXAMPLES = 3
EIGHTHS = " ▏▎▍▌▋▊▉█"
# Hostile rows could recolour the terminal, move its cursor or turn the direction of what follows.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_PERCENTILES = {"min": "shortest", "p50": "median", "mean": "mean", "p90": "p90", "p95": "p95", "p99": "p99",
                "max": "longest"}  # fmt: skip


def visible(text: str, *, line_break: str = "⏎") -> str:
    """Text whose control characters can be seen and do nothing: ``⏎``, ``⇥``, ``␛``, and ``U+202E`` in brackets.

    Args:
        text: Of a row.
        line_break: What stands for a line feed.
    """

    def shown(match: re.Match[str]) -> str:
        code = ord(match.group())
        if match.group() in "\n\t":
            return line_break if match.group() == "\n" else "⇥"
        return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"<U+{code:04X}>"

    return _UNPRINTABLE.sub(shown, text)


def bar(share: float, width: int, *, plain: bool) -> str:
    """A bar of a share of ``width`` columns, exact to an eighth of one; never empty for more than nothing."""
    if plain:
        return "#" * max(round(share * width), share > 0)
    full, eighths = divmod(max(round(share * width * 8), share > 0), 8)
    return EIGHTHS[8] * full + (EIGHTHS[eighths] if eighths else "")


def print_stats(report: dict[str, Any], file: str) -> None:
    """Print a data report."""
    console = _console()
    _overview(console, report)
    _lengths(console, report)
    _limits(console, report)
    _mixture(console, report["mixture"])
    _answers(console, report["answers"])
    _pairs(console, "duplicates", _repeated(report), report["duplicate_examples"])
    _pairs(console, "leaks", _leaked(report), report["leak_examples"])
    counts = report["lint"]["counts"]
    if counts:
        found = ", ".join(f"{number:,} {code}" for code, number in counts.items())
        _head(console, "suspicious", f"{found}; see: ftkit data {file} lint")


def print_rows(rows: Sequence[dict[str, Any]], *, tokens: bool) -> None:
    """Print rows in pieces, what counts coloured and underlined, or in ⟦brackets⟧ where there is no colour."""
    console = _console()
    brackets = console.no_color or not console.is_terminal
    opening, closing = ("[[", "]]") if _is_plain(console) else ("⟦", "⟧")
    how = f"between {opening} and {closing}" if brackets else "green and underlined"
    for row in rows:
        share = row["supervised_tokens"] / row["tokens"] if row["tokens"] else 0
        console.print(Text(f"{row['place']}  {row['tokens']:,} tokens, {row['supervised_tokens']:,} count "
                           f"({share:.0%}), {how}:", style="bold"), soft_wrap=True)  # fmt: skip
        text = Text()
        for piece in row["pieces"]:
            marked = brackets and piece["supervised"]
            parts = [part for part in piece["tokens"] if part] if tokens else [piece["text"]]
            text.append(opening if marked else "")
            for index, part in enumerate(parts):
                text.append("|" if index or (text and tokens and not marked) else "", style="dim")
                text.append(visible(part, line_break="⏎\n"), style=COUNTS if piece["supervised"] else "")
            text.append(closing if marked else "")
        # The terminal breaks the lines: a break of ours could not be told from the row's own in a file.
        console.print(text, soft_wrap=True)
        console.print()


def print_lint(found: dict[str, Any], file: str, *, rows: int) -> None:
    """Print findings by code, the most frequent first."""
    console = _console()
    counts = found["counts"]
    if not counts:
        console.print(f"Nothing suspicious in {found['rows']:,} rows of {file}.", soft_wrap=True)
        return
    for code, number in counts.items():
        console.print(Text.assemble((f"{code}  ", "bold"), f"{number:,}"))
        if code in found["codes"]:
            console.print(Text(found["codes"][code], style="dim"))
        shown = [finding for finding in found["findings"] if finding["code"] == code][:rows]
        for finding in shown:
            console.print(Text(f"  {finding['where']}: {visible(finding['detail'])}"), soft_wrap=True)
        if number > len(shown):
            console.print(Text(f"  … and {number - len(shown):,} more", style="dim"))
        console.print()


def _console() -> Console:
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, NARROWEST)
    if _is_plain(console) and isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="replace")  # a question mark for what the terminal lacks, not a traceback
    return console


def _is_plain(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


def _head(console: Console, name: str, text: str) -> None:
    """A fact behind its name; further lines are indented below the first."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=10, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, style="bold"), Text(text))
    console.print(grid)


def _overview(console: Console, report: dict[str, Any]) -> None:
    dropped = "".join(f"; {count:,} dropped: {reason}" for reason, count in report["dropped"].items())
    cut = f"; {report['truncated']:,} cut to max_length" if report["truncated"] else ""
    _head(
        console,
        "rows",
        f"{report['rows_in']:,} read: {report['trained']:,} to train on, {report['validation']:,} held back"
        f"{dropped}{cut}",
    )
    share = report["supervised_tokens"] / report["tokens"] if report["tokens"] else 0
    stops = ", ".join(visible(stop) for stop in report["stop_tokens"]) or "nothing"
    _head(
        console,
        "tokens",
        f"{format_count(report['tokens'])} in {report['sequences']:,} sequences; "
        f"{format_count(report['supervised_tokens'])} ({share:.1%}) count; answers end with {stops}",
    )
    if report["epoch"]["sequences"] != report["sequences"]:
        epoch = report["epoch"]
        _head(console, "epoch", f"{epoch['sequences']:,} sequences, {format_count(epoch['tokens'])} tokens")


def _lengths(console: Console, report: dict[str, Any]) -> None:
    lengths = report["lengths"]
    known = [f"{name} {lengths[key]:,}" for key, name in _PERCENTILES.items() if key in lengths]
    _head(console, "lengths", ", ".join(known))
    bars = report["histogram"]
    if not bars:
        return
    labels = [f"{entry['from']:,} to {entry['to']:,}" for entry in bars]
    numbers = [f"{entry['sequences']:,}" for entry in bars]
    left, right = max(map(len, labels)), max(map(len, numbers))
    room = max(8, min(console.width, 100) - left - right - 5)
    most = max(entry["sequences"] for entry in bars)
    for label, count, entry in zip(labels, numbers, bars, strict=True):
        drawn = bar(entry["sequences"] / most if most else 0, room, plain=_is_plain(console))
        console.print(Text.assemble(f"{label:>{left}}  {count:>{right}}  ", (drawn, "cyan")), soft_wrap=True)


def _limits(console: Console, report: dict[str, Any]) -> None:
    over = report["over_max_length"]
    total = max(report["rows_in"], report["sequences"], 1)
    _table(
        console,
        ("a max_length of", "would cut", "share"),
        [(f"{int(limit):,}", f"{count:,}", f"{100 * count / total:.1f} %") for limit, count in over.items()],
        numeric=(0, 1, 2),
    )


def _mixture(console: Console, mixture: list[dict[str, Any]]) -> None:
    if len(mixture) < 2:
        return
    rows = [
        (str(line["source"]), f"{line['rows']:,}", f"{line['tokens']:,}", f"{line['row_share']:.1%}",
         f"{line['token_share']:.1%}")
        for line in mixture
    ]  # fmt: skip
    _table(console, ("source", "rows", "tokens", "of rows", "of tokens"), rows, numeric=(1, 2, 3, 4))


def _answers(console: Console, answers: dict[str, Any] | None) -> None:
    if not answers or not answers["top"]:
        return
    # Of free text every answer is different, and a list of them says nothing.
    repeated = [answer for answer in answers["top"] if answer["rows"] > 1][:TOP_ANSWERS]
    more = "more than " if answers.get("more") else ""
    _head(console, "answers", f"{more}{answers['distinct']:,} different" + ("" if repeated else ", none twice"))
    width = max(12, console.width - 24)
    rows = [(_short(answer["text"], width), f"{answer['rows']:,}", f"{answer['share']:.1%}") for answer in repeated]
    _table(console, ("answer", "rows", "share"), rows, numeric=(1, 2))


def _repeated(report: dict[str, Any]) -> str:
    near = report["near_duplicates"]
    return f"{report['duplicates']:,} of the rows repeat an earlier one" + _nearly(near)


def _leaked(report: dict[str, Any]) -> str:
    return f"{report['leaks']:,} of the held-back rows are also trained on" + _nearly(report["near_leaks"])


def _nearly(count: int | None) -> str:
    return "; nearly equal rows were not searched" if count is None else f"; {count:,} nearly"


def _pairs(console: Console, name: str, text: str, examples: list[dict[str, Any]]) -> None:
    _head(console, name, text)
    for example in examples[:EXAMPLES]:
        likeness = f"{example['similarity']:.0%} " if example["similarity"] < 1 else ""
        line = f"  {' = '.join(example['places'])}  {likeness}{visible(example['text'])}"
        console.print(Text(_short(line, console.width)), soft_wrap=True)


def _short(text: str, width: int) -> str:
    cells = Text(visible(text))
    cells.truncate(width, overflow="ellipsis")
    return cells.plain


def _table(
    console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: tuple[int, ...] = ()
) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, title in enumerate(head):
        table.add_column(title, justify="right" if index in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print()
    console.print(table)
    console.print()
