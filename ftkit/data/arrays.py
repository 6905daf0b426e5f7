"""The arrays that tokenised rows are kept in, in memory, between processes and on disk."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftkit.data.encode import Encoded
from ftkit.data.sample import Sample
from ftkit.errors import Problem

ROW = np.dtype([
    ("number", "<i8"),  # line or index in its file
    ("file", "<i4"),  # which of the store's files
    ("digest", "<u8", (2,)),  # first 16 bytes of SHA-256 of the content
    ("group", "<u8"),  # what stays together in the split
    ("answer", "<u8"),  # hash of the last answer; 0 for plain text
    ("system", "<u8"),  # hash of the system prompt; 0 for none
    ("first_sequence", "<i8"),
    ("sequences", "<i4"),  # more than one where a row is trained turn by turn
    ("text_length", "<i4"),  # bytes in `texts`
    ("text_start", "<i8"),
])  # fmt: skip
SEQUENCE = np.dtype([
    ("ids_start", "<i8"),
    ("spans_start", "<i8"),
    ("length", "<i4"),
    ("spans", "<i4"),
    ("answer_start", "<i4"),
    ("stop_id", "<i4"),
    ("supervised", "<i4"),
    ("row", "<i4"),
    ("turn", "<i4"),  # of the last answer
])  # fmt: skip
TYPES = {
    "rows": ROW,
    "sequences": SEQUENCE,
    "ids": np.dtype("<i4"),
    "spans": np.dtype(("<i4", (2,))),
    "texts": np.dtype("u1"),
}  # fmt: skip


@dataclass(kw_only=True)
class TokenArrays:
    """Some rows, tokenised.

    Attributes:
        arrays: By the names in `TYPES`. Starts and row numbers count from the first of these rows.
        problems: Of rows that cannot be trained on, in file order.
        findings: What is suspicious about the others: code, number of the row, what follows the row's place in a
            message, detail. Without the file's name, under which the same content may be found again tomorrow.
    """

    arrays: dict[str, np.ndarray]
    problems: list[Problem] = field(default_factory=list)
    findings: list[tuple[str, int, str, str]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """A line of JSON that says what follows, and the arrays' own bytes."""
        header = {
            "counts": {name: len(self.arrays[name]) for name in TYPES},
            "problems": [vars(problem) for problem in self.problems],
            "findings": self.findings,
        }
        return b"".join([json.dumps(header).encode(), b"\n", *(self.arrays[name].tobytes() for name in TYPES)])

    @staticmethod
    def from_bytes(raw: bytes) -> TokenArrays:
        """What `to_bytes` gave."""
        end = raw.index(b"\n") + 1
        header = json.loads(raw[:end])
        arrays = {}
        for name, dtype in TYPES.items():
            count = header["counts"][name]
            arrays[name] = np.frombuffer(raw, dtype.base, count * (dtype.itemsize // dtype.base.itemsize), end)
            arrays[name] = arrays[name].reshape(count, *dtype.shape)
            end += count * dtype.itemsize
        return TokenArrays(
            arrays=arrays,
            problems=[Problem(**problem) for problem in header["problems"]],
            findings=[tuple(finding) for finding in header["findings"]],
        )


class ArrayBuilder:
    """Collects tokenised rows one by one."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._sequences: list[tuple[Any, ...]] = []
        self._ids = array("i")
        self._spans: list[tuple[int, int]] = []
        self._texts = bytearray()
        self._tokens = 0

    def add(self, sample: Sample, number: int, encoded: Sequence[Encoded]) -> None:
        """One row and its sequences."""
        texts = json.dumps(_texts(sample, encoded)).encode()
        raw = sample.digest
        digest = int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:16], "big")
        group = digest[0] if sample.group is None else _hash(sample.group)
        system = next((turn.content for turn in sample.turns if turn.role == "system"), None)
        answer = None if sample.kind == "text" else sample.turns[encoded[-1].turn].content
        place = len(self._sequences), len(encoded), len(texts), len(self._texts)
        self._rows.append((number, 0, digest, group, _hash(answer), _hash(system), *place))
        self._texts += texts
        for one in encoded:
            supervised = sum(end - start for start, end in one.spans)
            place = (self._tokens, len(self._spans), len(one.ids), len(one.spans))
            row = len(self._rows) - 1
            self._sequences.append((*place, one.answer_start, one.stop_id, supervised, row, one.turn))
            self._ids.extend(one.ids)
            self._spans += one.spans
            self._tokens += len(one.ids)

    def build(self) -> dict[str, np.ndarray]:
        """The arrays of all rows so far."""
        return {
            "rows": np.array(self._rows, ROW),
            "sequences": np.array(self._sequences, SEQUENCE),
            "ids": np.array(self._ids, TYPES["ids"]),
            "spans": np.array(self._spans, "<i4").reshape(-1, 2),
            "texts": np.frombuffer(bytes(self._texts), np.uint8),
        }


def group_key(sample: Sample) -> int:
    """What stays together in the split: the hash of the sample's group, or of its content."""
    if sample.group is not None:
        return _hash(sample.group)
    return int.from_bytes(sample.digest[:8], "big")


def _texts(sample: Sample, encoded: Sequence[Encoded]) -> dict[str, Any]:
    """What is shown of a row besides its tokens: question and answer of each sequence, the system prompt.

    Of plain text, its beginning.
    """
    if sample.kind == "text":
        return {"begins": sample.turns[0].content[:200]}
    turns = sample.turns
    kept: dict[str, Any] = {"asked": [[turns[one.turn - 1].content, turns[one.turn].content] for one in encoded]}
    system = next((turn.content for turn in turns if turn.role == "system"), None)
    return kept if system is None else kept | {"system": system}


def _hash(text: str | None) -> int:
    """Sixty-four bits of SHA-256; 0 stands for no text."""
    return 0 if text is None else int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
