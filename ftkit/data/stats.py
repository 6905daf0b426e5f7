"""Numbers about a data set: how long its sequences are, what a shorter limit would cost, which answers it has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.integer[Any]]
PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
MAX_LENGTHS = (256, 512, 1024, 2048)
BARS = 24  # at most so many, the last one for the outliers included


def length_summary(lengths: Lengths) -> dict[str, float]:
    """Percentiles by nearest rank, so that each is the length of a real sequence.

    Args:
        lengths: Tokens of each sequence, in any order.

    Returns:
        ``min``, ``mean``, ``p50``, ``p90``, ``p95``, ``p99``, ``max``; all 0 where there is none.
    """
    if not len(lengths):
        return dict.fromkeys(("min", "mean", *PERCENTILES, "max"), 0)
    ordered = np.sort(lengths)
    # The smallest length that at least so many percent of the sequences do not exceed.
    ranks = {name: -(-percent * len(ordered) // 100) - 1 for name, percent in PERCENTILES.items()}
    return {
        "min": int(ordered[0]),
        "mean": round(float(ordered.mean(dtype=np.float64)), 1),
        **{name: int(ordered[rank]) for name, rank in ranks.items()},
        "max": int(ordered[-1]),
    }


def length_histogram(lengths: Lengths, *, bars: int = BARS) -> list[dict[str, int]]:
    """Counts of sequences by length, in ranges of one round width.

    What is far above the rest would squeeze all the others into one range, so it shares the last range, however wide.

    Args:
        lengths: Tokens of each sequence.
        bars: At most so many ranges.

    Returns:
        ``from`` and ``to`` (both included) and ``sequences`` of each range, without gaps.
    """
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    usual = int(np.quantile(lengths, 0.99, method="inverted_cdf"))
    # A tail of up to the same width again is worth its own bars; a longer one is mostly empty ranges.
    covered = high if high - low <= 2 * (usual - low) + 1 else usual
    width = _round_up((covered - low + 1) / (bars - 2))  # one range for the start, one for the tail
    first = low // width * width
    edges = [*range(first, covered + 1, width), covered - (covered - first) % width + width]
    edges[-1] = max(edges[-1], high + 1)
    if edges[-1] - edges[-2] > width:
        edges.insert(-1, edges[-2] + width)
    counts, _ = np.histogram(lengths, bins=np.array(edges, dtype=np.int64))
    return [
        {"from": start, "to": end - 1, "sequences": int(count)}
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
    ]


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 10 ** math.floor(math.log10(max(width, 1)))
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width))


def over_max_length(longest: Lengths, limits: Iterable[int] = MAX_LENGTHS) -> dict[str, int]:
    """How many rows would be cut or dropped at each ``max_length``.

    Args:
        longest: Tokens of each row's longest sequence, before anything was cut.
        limits: In tokens.
    """
    return {str(limit): int(np.count_nonzero(longest > limit)) for limit in sorted(set(limits))}


class AnswerCounts:
    """How often each answer is given, in bounded memory.

    Once ``MAX_DISTINCT`` answers are known no new one is counted by itself: so many belong to free text, where only
    answers that come early and often are worth naming.
    """

    MAX_DISTINCT = 50_000
    MAX_CHARACTERS = 200  # a longer answer is known by its beginning and its length

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.more = False

    def add(self, answer: str, rows: int = 1) -> None:
        """Count an answer."""
        text = answer.strip()
        if len(text) > self.MAX_CHARACTERS:
            text = f"{text[: self.MAX_CHARACTERS]}… ({len(text):,} characters)"
        self._add(text, rows)

    def update(self, other: AnswerCounts) -> None:
        """Add what was counted elsewhere; in one order of parts, the result is the same every time."""
        for text, rows in other.counts.items():
            self._add(text, rows)
        self.rows += other.rows - other.counts.total()
        self.more |= other.more

    def _add(self, text: str, rows: int) -> None:
        self.rows += rows
        if text in self.counts or len(self.counts) < self.MAX_DISTINCT:
            self.counts[text] += rows
        else:
            self.more = True

    def to_dict(self, top: int = 20) -> dict[str, Any] | None:
        """``distinct`` (at least so many where ``more`` is true), and the most frequent answers; None without any."""
        if not self.rows:
            return None
        shown = ranked(self.counts)[:top]
        return {
            "distinct": len(self.counts),
            "more": self.more,
            "classes": bool(answer_classes(self.counts)),
            "top": [{"text": text, "rows": rows, "share": rows / self.rows} for text, rows in shown],
        }


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first, equally frequent ones by their text, so that the order does not hang on the files'."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def answer_classes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The classes of a classification set, most frequent first; empty where answers are free text.

    Answers are classes where there are two to a thousand of them, on average five rows or more for each.
    """
    rows = sum(counts.values())
    if not 2 <= len(counts) <= 1000 or rows < 5 * len(counts):
        return []
    return [{"text": text, "rows": count, "share": count / rows} for text, count in ranked(counts)]
