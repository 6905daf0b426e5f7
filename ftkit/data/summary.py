"""The data report: numbers, findings and examples out of what was gathered and planned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ftkit.data.gather import Gathered, Part
from ftkit.data.lint import Finding
from ftkit.data.lint_dataset import lint_answers, lint_lengths, lint_system_prompts, long_rows, summarise_findings
from ftkit.data.repeats import Found
from ftkit.data.rows import Indices
from ftkit.data.show import Decode, example_json
from ftkit.data.stats import (
    MAX_LENGTHS,
    AnswerCounts,
    answer_classes,
    length_histogram,
    length_summary,
    over_max_length,
)
from ftkit.data.stored import NamedStore, StoredExamples

MOST_TEXTS = 1500  # different answers or system prompts that are read to be counted; more are no classes
EXAMPLES = 5


class RowTexts:
    """Rows of all stores under one numbering.

    Args:
        stores: In order.
    """

    def __init__(self, stores: Sequence[NamedStore]) -> None:
        self.stores = stores
        self.starts = np.cumsum([0, *(len(named.store.rows) for named in stores)])

    def _find(self, row: int) -> tuple[NamedStore, int]:
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.stores[which], row - int(self.starts[which])

    def place(self, row: int) -> str:
        """File and line."""
        named, local = self._find(row)
        return named.place(local)

    def texts(self, row: int) -> dict[str, Any]:
        """Question, answer and system prompt; see `ftkit.data.store.TokenStore.texts`."""
        named, local = self._find(row)
        return named.store.texts(local)

    def column(self, name: str) -> np.ndarray:
        """One field of all rows."""
        return np.concatenate([np.zeros(0, np.uint64), *(named.store.rows[name] for named in self.stores)])

    def excerpt(self, row: int) -> str:
        """What a row is about, for a table: its last question, or the beginning of its text."""
        texts = self.texts(row)
        return str(texts["asked"][-1][0])[:200] if "asked" in texts else str(texts["begins"])


def pair_examples(found: Sequence[Found | None], texts: RowTexts) -> list[dict[str, Any]]:
    """Rows that are equal or nearly so, as people can look them up."""
    return [
        {
            "places": [texts.place(pair.row), texts.place(pair.other)],
            "similarity": round(float(pair.similarity), 3),
            "text": texts.excerpt(pair.row),
        }
        for one in found
        for pair in (() if one is None else one.examples)
    ]


def answer_summary(rows: Indices, texts: RowTexts) -> tuple[dict[str, Any] | None, list[Finding]]:
    """How answers are distributed over rows, and what is suspicious about that."""
    counts, distinct, total = _counted(rows, texts, "answer", lambda found: found["asked"][-1][1])
    if not total:
        return None, []
    shown = AnswerCounts()
    for text, count in counts.items():
        shown.add(text, count)
    top = sorted(shown.counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    summary = {
        "distinct": distinct,
        "more": False,
        "classes": bool(answer_classes(counts)),
        "top": [{"text": text, "rows": count, "share": count / total} for text, count in top],
    }
    return summary, lint_answers(counts, total)


def findings_of(rows: Indices, lengths: np.ndarray, texts: RowTexts) -> Iterator[Finding]:
    """Everything suspicious: row by row from the stores, then of the training rows as a whole."""
    for named in texts.stores:
        yield from named.findings()
    odd = {int(index): texts.place(int(rows[index])) for index in long_rows(lengths)[:1000]} if len(rows) else {}
    yield from lint_lengths(lengths, odd)
    prompts, _, _ = _counted(rows, texts, "system", lambda found: found["system"])
    yield from lint_system_prompts(prompts)
    yield from answer_summary(rows, texts)[1]


def _counted(rows: Indices, texts: RowTexts, column: str, read: Any) -> tuple[dict[str, int], int, int]:
    """Rows by text of the most frequent texts, how many different ones there are, and the rows that have one."""
    hashes = texts.column(column)[rows]
    has_one = hashes != 0
    found, first, counts = np.unique(hashes[has_one], return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))[:MOST_TEXTS]
    where = rows[has_one]
    by_text = {read(texts.texts(int(where[first[at]]))): int(counts[at]) for at in order}
    return by_text, len(found), int(counts.sum())


def mixture(parts: Sequence[Part], sources: np.ndarray, epoch: StoredExamples) -> list[dict[str, Any]]:
    """What each source gives to an epoch.

    Args:
        parts: The sources.
        sources: The source of each sequence of the epoch.
        epoch: The sequences.
    """
    lengths, supervised, begins_row = epoch.lengths, epoch.supervised, epoch.begins_row
    lines = []
    for index, part in enumerate(parts):
        if part.role not in ("train", "replay"):
            continue
        mine = sources == index
        rows = len(np.unique(epoch.row_keys[mine]))
        lines.append({
            "source": part.source.path,
            "role": part.role,
            "rows": rows,
            "sequences": int(mine.sum()),
            "tokens": int(lengths[mine].sum()),
            "supervised_tokens": int(supervised[mine].sum()),
            "row_share": round(float(begins_row[mine].sum()) / max(1, int(begins_row.sum())), 4),
            "token_share": round(float(lengths[mine].sum()) / max(1, int(lengths.sum())), 4),
        })  # fmt: skip
    return lines


def length_numbers(train: StoredExamples, uncut: np.ndarray, limits: Sequence[int]) -> dict[str, Any]:
    """Lengths of the training sequences, and what other limits would cut.

    Args:
        train: Each sequence once.
        uncut: Tokens of each row's longest sequence, before any limit.
        limits: Further lengths to look at.
    """
    return {
        "lengths": length_summary(train.lengths),
        "histogram": length_histogram(train.lengths),
        "over_max_length": over_max_length(uncut, [*MAX_LENGTHS, *limits]),
    }


def shown_examples(train: StoredExamples, decode: Decode) -> list[dict[str, Any]]:
    """Some training sequences, spread over the data."""
    if not len(train):
        return []
    chosen = np.unique(np.linspace(0, len(train) - 1, EXAMPLES).astype(int))
    return [example_json(train[int(index)], decode) for index in chosen]


def lint_summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Findings by code, with the first of each."""
    return dict(summarise_findings(findings))


def data_digest(gathered: Gathered, *sides: StoredExamples) -> str:
    """SHA-256 of everything that is trained on and validated with, in order, as it is cut.

    Files that rows are only compared with have no part in it, wherever they are listed.
    """
    used = np.unique(np.concatenate([side.chosen[:, 0] for side in sides]))
    digest = hashlib.sha256(json.dumps([gathered.stores[int(store)].store.digest for store in used]).encode())
    for side in sides:
        chosen = np.stack([np.searchsorted(used, side.chosen[:, 0]), side.chosen[:, 1]], axis=1)
        digest.update(f"|{side.max_length}|".encode())
        digest.update(np.ascontiguousarray(chosen, dtype="<i8").tobytes())
    return digest.hexdigest()
