"""StoredExamples to train on, read from token stores when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.lint import Finding
from ftkit.data.sources import place
from ftkit.data.store import TokenStore


@dataclass(frozen=True, kw_only=True)
class NamedStore:
    """A store, and what its files are called today.

    Attributes:
        store: Keyed by content, so it knows no names.
        names: Of its files.
        styles: How rows are numbered in each.
        source: Which of the recipe's sources it belongs to.
    """

    store: TokenStore
    names: tuple[str, ...]
    styles: tuple[str, ...]
    source: int

    def place(self, row: int) -> str:
        """File and line of a row."""
        entry = self.store.rows[row]
        file = int(entry["file"])
        return place(self.names[file], self.styles[file], int(entry["number"]))

    def findings(self) -> Iterator[Finding]:
        """What is suspicious about its rows, in file order."""
        for file, code, number, rest, detail in self.store.findings():
            yield Finding(code, place(self.names[file], self.styles[file], number) + rest, detail)


class StoredExamples(Sequence[TokenizedExample]):
    """A list of examples that lives on disk.

    Args:
        stores: Where rows are.
        chosen: (sequences, 2): which store, and which sequence of it.
        max_length: Longer sequences are cut to it.
    """

    def __init__(self, stores: Sequence[NamedStore], chosen: np.ndarray, max_length: int) -> None:
        self.stores = stores
        self.chosen = chosen
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...
    @overload
    def __getitem__(self, index: slice) -> StoredExamples: ...

    def __getitem__(self, index: int | slice) -> TokenizedExample | StoredExamples:
        if isinstance(index, slice):
            return StoredExamples(self.stores, self.chosen[index], self.max_length)
        which, sequence = map(int, self.chosen[index])
        return self._example(self.stores[which], sequence)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, without reading any."""
        lengths: np.ndarray = np.minimum(self._of_each("length"), self.max_length)
        return lengths

    @property
    def truncated(self) -> np.ndarray:
        """Whether each is cut."""
        is_cut: np.ndarray = self._of_each("length") > self.max_length
        return is_cut

    @property
    def stop_ids(self) -> np.ndarray:
        """The token that ends each one's last answer."""
        return self._of_each("stop_id")

    @property
    def supervised(self) -> np.ndarray:
        """How many tokens of each count towards the loss, after cutting."""
        counts = self._of_each("supervised")
        for index in np.flatnonzero(self.truncated):
            which, sequence = self.chosen[index]
            spans = self.stores[which].store.spans(int(sequence))
            counts[index] = np.diff(np.minimum(spans, self.max_length), axis=1).sum()
        return counts

    @property
    def sources(self) -> np.ndarray:
        """Which of the recipe's sources each comes from."""
        sources: np.ndarray = np.array([named.source for named in self.stores], np.int64)[self.chosen[:, 0]]
        return sources

    @property
    def row_keys(self) -> np.ndarray:
        """A number for each one's row, the same for all sequences of a row."""
        keys: np.ndarray = (self.chosen[:, 0] << 40) + self._of_each("row")
        return keys

    @property
    def begins_row(self) -> np.ndarray:
        """Whether each is the first sequence of its row: as many are as rows are taken."""
        is_first = np.zeros(len(self.chosen), bool)
        for which, named in enumerate(self.stores):
            mine = self.chosen[:, 0] == which
            sequences = self.chosen[mine, 1]
            is_first[mine] = named.store.rows["first_sequence"][named.store.sequences["row"][sequences]] == sequences
        return is_first

    @property
    def group_keys(self) -> set[int]:
        """What each one's row is split by."""
        found: set[int] = set()
        for which, named in enumerate(self.stores):
            sequences = self.chosen[self.chosen[:, 0] == which, 1]
            found |= set(named.store.rows["group"][named.store.sequences["row"][sequences]].tolist())
        return found

    @property
    def rows_truncated(self) -> int:
        """How many rows have a sequence that is cut."""
        return len(np.unique(self.row_keys[self.truncated]))

    def place(self, index: int) -> str:
        """File and line of the row behind a sequence."""
        which, sequence = map(int, self.chosen[index])
        named = self.stores[which]
        return named.place(int(named.store.sequences["row"][sequence]))

    def _of_each(self, name: str) -> np.ndarray:
        found = np.zeros(len(self.chosen), np.int64)
        for which, named in enumerate(self.stores):
            mine = self.chosen[:, 0] == which
            found[mine] = named.store.sequences[name][self.chosen[mine, 1]]
        return found

    def _example(self, named: NamedStore, sequence: int) -> TokenizedExample:
        entry = named.store.sequences[sequence]
        row = int(entry["row"])
        ids: list[int] = named.store.ids(sequence)[: self.max_length].tolist()
        labels = [IGNORED] * len(ids)
        for start, end in named.store.spans(sequence).tolist():
            # By position, never by id: where pad equals eos, masking by id would hide the stop token.
            labels[start:end] = ids[start:end]
        question, answer = _asked(named.store.texts(row), sequence - int(named.store.rows["first_sequence"][row]))
        return TokenizedExample(
            input_ids=ids,
            labels=labels,
            answer_start=min(int(entry["answer_start"]), len(ids)),
            stop_id=int(entry["stop_id"]),
            answer=answer,
            place=named.place(row),
            question=question,
        )


def _asked(texts: dict[str, Any], index: int) -> tuple[str | None, str | None]:
    asked = texts.get("asked")
    return (None, None) if asked is None else (asked[index][0], asked[index][1])
