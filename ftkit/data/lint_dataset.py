"""What is suspicious only beside all the other rows: outliers, answers that are nearly always the same, prompts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from ftkit.data.lint import Finding
from ftkit.data.stats import Lengths, answer_classes, length_summary, ranked

DATASET_CODES = {
    "long-row": "Longer than ten times the median and than 99% of the rows: look whether a file slipped into a cell.",
    "constant-answer": "One answer stands in most rows, so always giving it looks good: balance the data.",
    "frequent-answers": "A few answers carry most rows beside many others: refusals or boilerplate drown the rest.",
    "system-prompt": "System prompts that differ in white space or case alone: make them one, as serving sends one.",
}
MOST = 0.5  # of the rows
MOST_OF_CLASSES = 0.9  # classes may be uneven; at nine in ten, accuracy says nothing any more
FEW = 10


def long_rows(lengths: Lengths) -> list[int]:
    """Indices of rows over ten times the median and over the 99th percentile, longest first."""
    summary = length_summary(lengths)
    found = np.flatnonzero(lengths > max(10 * summary["p50"], summary["p99"]))
    return [int(index) for index in found[np.argsort(-lengths[found].astype(np.int64), kind="stable")]]


def lint_lengths(lengths: Lengths, places: Mapping[int, str]) -> list[Finding]:
    """A finding for each of `long_rows` whose place is given.

    Args:
        lengths: Tokens of each row.
        places: Where a row comes from, by its index.
    """
    median = length_summary(lengths)["p50"]
    return [
        Finding("long-row", places[row], f"{int(lengths[row]):,} tokens; the median is {median:,.0f}")
        for row in long_rows(lengths)
        if row in places
    ]


def lint_answers(counts: Mapping[str, int], rows: int) -> list[Finding]:
    """Answers that stand in too many rows.

    Args:
        counts: Rows by answer.
        rows: All rows, of which ``counts`` may have left some out.
    """
    if rows < FEW or not counts:
        return []
    top = ranked(counts)
    text, most = top[0]
    classes = bool(answer_classes(counts))
    where = "the whole data set"
    if most > (MOST_OF_CLASSES if classes else MOST) * rows or len(counts) == 1:
        return [Finding("constant-answer", where, f"{_quoted(text)} in {most:,} of {rows:,} rows")]
    few = sum(count for _, count in top[:FEW])
    # Each of them more than once, or ten rows of twelve would do.
    if not classes and few > MOST * rows and top[:FEW][-1][1] > 1 and len(counts) > FEW:
        shown = ", ".join(_quoted(answer) for answer, _ in top[:3])
        return [Finding("frequent-answers", where, f"{FEW} answers in {few:,} of {rows:,} rows, such as {shown}")]
    return []


def lint_system_prompts(counts: Mapping[str, int]) -> list[Finding]:
    """System prompts that are one but for white space or case.

    Args:
        counts: Rows by system prompt.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for text, _ in ranked(counts):
        alike[" ".join(text.split()).casefold()].append(text)
    return [
        Finding(
            "system-prompt",
            "the whole data set",
            f"{_quoted(texts[0])} in {counts[texts[0]]:,} rows, and {len(texts) - 1} spelt a little differently in "
            f"{sum(counts[text] for text in texts[1:]):,}",
        )
        for texts in alike.values()
        if len(texts) > 1
    ]


def summarise_findings(findings: Iterable[Finding], *, examples: int = 20) -> dict[str, object]:
    """``counts`` by code, most frequent first, and the first ``examples`` findings of each code."""
    counts: Counter[str] = Counter()
    kept = []
    for finding in findings:
        counts[finding.code] += 1
        if counts[finding.code] <= examples:
            kept.append({"code": finding.code, "where": finding.where, "detail": finding.detail})
    return {"counts": dict(ranked(counts)), "findings": kept}


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
