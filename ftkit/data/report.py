"""What happened to every row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file that was read."""

    path: str
    sha256: str
    format: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Accounts for every row: ``rows_in == trained + validation + sum(dropped.values())``.

    Attributes:
        rows_in: Rows of all sources; files named under ``data.evaluation`` are only compared with and do not count.
        trained: Different rows trained on.
        validation: Rows held back.
        dropped: Rows left out, by reason.
        truncated: Of the rows kept, those that were cut to ``max_length``.
        sequences: Of the trained rows: one each, or one for each answer where a template is trained turn by turn.
        tokens: Of the trained rows.
        supervised_tokens: Of these, tokens that count towards the loss.
        epoch: What one epoch takes, weights and replay applied: ``rows``, ``sequences`` and ``tokens``.
        lengths: Tokens per training sequence: min, mean, p50, p90, p95, p99, max.
        histogram: ``from``, ``to`` (tokens) and ``sequences`` of each bar.
        over_max_length: How many of all sequences would be longer than 256, 512, ... tokens.
        duplicates: Training rows whose content stood earlier among them.
        leaks: Validation and evaluation rows whose content is also in the training rows.
        near_duplicates: The same of nearly equal rows; None where they were not searched.
        near_leaks: The same of nearly equal rows; None where they were not searched.
        duplicate_examples: ``places``, ``similarity`` and ``text`` of some.
        leak_examples: The same of leaks.
        mixture: A line a source: rows, sequences and tokens of one epoch, and their shares.
        answers: How many different answers there are, and how often the most frequent; None for plain text.
        lint: ``counts`` by code, and the first ``findings`` of each.
        examples: Some training sequences as pieces of text that count or do not.
        stop_tokens: Texts of the tokens that end an answer.
        chat_template: Whether rows were rendered by a chat template.
        digest: SHA-256 of all that is trained on and validated with, in order.
        files: What was read.
        streamed: Whether training reads on beyond the rows that this report is about, the first ones of each file.
    """

    rows_in: int
    trained: int
    validation: int
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: int
    sequences: int
    tokens: int
    supervised_tokens: int
    epoch: dict[str, int]
    lengths: dict[str, float]
    histogram: list[dict[str, int]]
    over_max_length: dict[str, int]
    duplicates: int
    leaks: int
    near_duplicates: int | None
    near_leaks: int | None
    duplicate_examples: list[dict[str, Any]]
    leak_examples: list[dict[str, Any]]
    mixture: list[dict[str, Any]]
    answers: dict[str, Any] | None
    lint: dict[str, Any]
    examples: list[dict[str, Any]]
    stop_tokens: list[str]
    chat_template: bool
    digest: str
    files: list[SourceFile]
    streamed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As written to data_report.json."""
        return asdict(self)
