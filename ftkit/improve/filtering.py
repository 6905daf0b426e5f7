"""From a log to rows to learn from, with every row of it accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.data.near import NearSearch
from ftkit.data.ngrams import Sequences
from ftkit.data.private import find_private
from ftkit.files import sha256_json, write_json, write_text
from ftkit.improve.frozen import Frozen, user_text
from ftkit.improve.keys import Known, close
from ftkit.improve.log import Exchange, Log
from ftkit.rag.reader import is_refusal

ROWS, REPORT, ACCOUNT = "messages.jsonl", "filter.json", "rows.jsonl"
KEPT = "kept"
FaultOf = Callable[[Mapping[str, Any]], str | None]
# In the order in which they are looked for: a row has the first that holds.
REASONS = (
    "repeated id",
    "withdrawn",
    "no consent",
    "answered from documents",
    "no feedback",
    "rated down without correction",
    "refusal",
    "cut off",
    "no answer",
    "cannot be trained on",
    "too long",
    "secret or personal data",
    "in the frozen test",
    "near the frozen test",
    "contradiction",
    "duplicate",
    "near duplicate",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row to learn from. Attributes: exchange: where it comes from. answer: the right one."""

    exchange: Exchange
    answer: str

    @property
    def prompt(self) -> str:
        """What stands before the answer, as far as it decides it."""
        return sha256_json(
            [
                [[one.get("role"), close(_content(one)), _calls(one)] for one in self.exchange.messages],
                self.exchange.tools,
            ]
        )

    @property
    def text(self) -> str:
        """All that stands in it, with calls of tools, what they gave, and what was offered."""
        parts = []
        for one in self.exchange.messages:
            parts.append(_content(one))
            parts += [_json(value) for key, value in one.items() if key not in ("role", "content")]
        return "\n".join([*parts, *map(_json, self.exchange.tools), self.answer])

    @property
    def values(self) -> dict[str, Any]:
        """As chat data. Former answers of the conversation were not rated, so nothing is learnt from them."""
        messages = [
            {**one, "train": False} if one.get("role") == "assistant" else one for one in self.exchange.messages
        ]
        tools = {"tools": list(self.exchange.tools)} if self.exchange.tools else {}
        return {"messages": [*messages, {"role": "assistant", "content": self.answer}], **tools}


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What became of a log.

    Attributes:
        rows: To learn from, in the order of the log.
        outcomes: `KEPT` or the reason of every exchange, in the order of the log.
        log: That was read.
    """

    rows: tuple[Row, ...]
    outcomes: tuple[str, ...]
    log: Log

    @property
    def sha256(self) -> str:
        """Of the rows; their order and their ids are no part of it."""
        return sha256_json(sorted(json.dumps(row.values, sort_keys=True) for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """The content of filter.json; ``kept`` and ``dropped`` together are ``rows``."""
        counts = Counter(self.outcomes)
        assert sum(counts.values()) == len(self.log.exchanges), "every row has one outcome"
        return {
            "rows": len(self.log.exchanges),
            "kept": counts[KEPT],
            "dropped": {reason: counts[reason] for reason in REASONS if counts[reason]},
            "corrected": sum(row.exchange.correction is not None for row in self.rows),
            "lines": self.log.lines,
            "torn_lines": self.log.torn,
            "feedback_on_unknown": self.log.unknown,
            "sha256": self.sha256,
        }

    def write(self, folder: Path) -> None:
        """Write the rows, the counts, and the outcome of every id."""
        write_text(folder / ROWS, "".join(json.dumps(row.values) + "\n" for row in self.rows))
        account = [
            {"id": one.id, "outcome": outcome} for one, outcome in zip(self.log.exchanges, self.outcomes, strict=True)
        ]
        write_text(folder / ACCOUNT, "".join(json.dumps(one) + "\n" for one in account))
        write_json(folder / REPORT, self.to_dict())


def filter_log(log: Log, frozen: Frozen, fault_of: FaultOf) -> Filtered:
    """Choose what may and should be learnt from.

    Args:
        log: As read.
        frozen: No row may hold one of its questions, in whatever message.
        fault_of: Why chat data cannot be trained on, one of `REASONS`; see `ftkit.improve.trainable`.
    """
    test = Known(text for one in frozen.questions for text in one.asks)
    outcomes: list[str] = []
    seen: set[str] = set()
    for one in log.exchanges:
        outcomes.append("repeated id" if one.id in seen else _reason(one, test, fault_of) or KEPT)
        seen.add(one.id)
    # What is judged by other rows: only by those that are left, each step on what the former left.
    for reason, finds in (
        ("contradiction", _contradicting), ("duplicate", _repeated), ("near duplicate", _nearly_repeated),
    ):  # fmt: skip
        _drop(log.exchanges, outcomes, reason, finds)
    rows = tuple(_row(one) for one, outcome in zip(log.exchanges, outcomes, strict=True) if outcome == KEPT)
    return Filtered(rows=rows, outcomes=tuple(outcomes), log=log)


def _drop(
    exchanges: Sequence[Exchange], outcomes: list[str], reason: str, finds: Callable[[list[Row]], list[int]]
) -> None:
    places = [place for place, outcome in enumerate(outcomes) if outcome == KEPT]
    for found in finds([_row(exchanges[place]) for place in places]):
        outcomes[places[found]] = reason


def _row(one: Exchange) -> Row:
    return Row(exchange=one, answer=one.answer if one.correction is None else one.correction)


def _reason(one: Exchange, test: Known, fault_of: FaultOf) -> str | None:
    """Why a row is left out, as far as it alone says; None for not at all."""
    row, corrected = _row(one), one.correction is not None
    checks: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("withdrawn", lambda: one.withdrawn),
        ("no consent", lambda: not one.consent),
        ("answered from documents", lambda: one.from_documents),
        ("no feedback", lambda: one.rating is None and not corrected),
        ("rated down without correction", lambda: one.rating == "down" and not corrected),
        (
            "refusal",
            lambda: (one.abstained and not corrected) or (bool(row.answer.strip()) and is_refusal(row.answer)),
        ),
        ("cut off", lambda: one.finish_reason == "length" and not corrected),
        ("no answer", lambda: not row.answer.strip() or not user_text(one.messages).strip()),
    )
    for reason, holds in checks:
        if holds():
            return reason
    if (fault := fault_of(row.values)) is not None:
        return fault
    if find_private(row.text, row.text.encode("utf-8", "replace")):
        return "secret or personal data"
    likeness = test.like([*map(_content, one.messages), user_text(one.messages), row.answer])
    return {"exact": "in the frozen test", "near": "near the frozen test", None: None}[likeness]


def _contradicting(rows: list[Row]) -> list[int]:
    """Rows whose prompt has several right answers: nobody here knows which of them is right."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row.prompt, set()).add(close(row.answer))
    return [place for place, row in enumerate(rows) if len(answers[row.prompt]) > 1]


def _repeated(rows: list[Row]) -> list[int]:
    """Rows whose prompt stood before; their answer is the same, as no contradiction is left."""
    seen: set[str] = set()
    found = []
    for place, row in enumerate(rows):
        if row.prompt in seen:
            found.append(place)
        seen.add(row.prompt)
    return found


def _nearly_repeated(rows: list[Row]) -> list[int]:
    """Rows that are near to an earlier one and have its answer: with another answer they are other facts."""
    if not rows:
        return []
    texts = [np.array([ord(letter) for letter in close(row.text)], np.int32) for row in rows]
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    everything = np.arange(len(rows), dtype=np.int64)
    search = NearSearch(Sequences(ids=np.concatenate(texts), offsets=ends), everything)
    pairs = search.within(everything)
    return [
        int(place)
        for place, other in zip(pairs.row, pairs.other, strict=True)
        if close(rows[place].answer) == close(rows[other].answer)
    ]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _calls(message: dict[str, Any]) -> list[Any]:
    """The calls of a message, without the ids, which every server draws anew."""
    calls = message.get("tool_calls") or []
    return [one.get("function", one) if isinstance(one, dict) else one for one in calls]


def _json(value: Any) -> str:
    """With the quotes of a JSON in a JSON as they were, so that a secret in it is seen."""
    return json.dumps(value, ensure_ascii=False).replace('\\"', '"')
