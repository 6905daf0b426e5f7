"""What happened to every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ftkit.data.tokenize import TokenizedExample


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
        rows_in: Rows of all files.
        trained: Rows trained on.
        validation: Rows held back.
        dropped: Rows left out, by reason.
        truncated: Of the rows kept, those that were cut to ``max_length``.
        tokens: Of the training rows.
        supervised_tokens: Of these, tokens that count towards the loss.
        lengths: Tokens per training row: min, mean, p50, p95, max.
        duplicates: Training rows whose content stood earlier among them.
        leaks: Validation rows whose content is also trained on.
        stop_tokens: Texts of the tokens that end an answer.
        chat_template: Whether rows were rendered by a chat template.
        digest: SHA-256 of all ids and labels in order.
        files: What was read.
    """

    rows_in: int
    trained: int
    validation: int
    dropped: dict[str, int] = field(default_factory=dict)
    truncated: int
    tokens: int
    supervised_tokens: int
    lengths: dict[str, float]
    duplicates: int
    leaks: int
    stop_tokens: list[str]
    chat_template: bool
    digest: str
    files: list[SourceFile]

    def to_dict(self) -> dict[str, Any]:
        """As written to data_report.json."""
        return asdict(self)


def length_summary(examples: Sequence[TokenizedExample]) -> dict[str, float]:
    """Percentiles by nearest rank, so that each is the length of a real row."""
    lengths = sorted(len(example.input_ids) for example in examples)
    if not lengths:
        return {"min": 0, "mean": 0, "p50": 0, "p95": 0, "max": 0}

    def rank(share: float) -> int:
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))]

    mean = round(sum(lengths) / len(lengths), 1)
    return {"min": lengths[0], "mean": mean, "p50": rank(0.5), "p95": rank(0.95), "max": lengths[-1]}
