"""Tokenised rows of one or several files, on disk.

    store.json       what the arrays were made from, how long they are, the SHA-256 of each, and its own
    rows.bin ...     the arrays of `ftkit.data.arrays.TYPES`
    findings.jsonl   what is suspicious about the rows

Rows and sequences are held in memory, about 130 bytes a row; token ids and texts are read when they are asked for,
with ``pread``, so that walking through a store does not fill the memory with it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ftkit.data.arrays import TYPES, TokenArrays
from ftkit.files import sha256_json, to_json

FORMAT_VERSION = 1
FINDINGS = "findings.jsonl"
SEAL = "sha256_of_this"
_READ_BYTES = 1 << 22


class DamagedStoreError(ValueError):
    """A store is not what was once written; it is made again."""


class StoreWriter:
    """Writes a store into an empty folder, a block at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._files = {name: _Hashed(self._stack.enter_context((folder / name).open("wb"))) for name in _names()}
        self._lengths = dict.fromkeys(TYPES, 0)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, block: TokenArrays, *, file: int) -> None:
        """Add rows of the file with that number behind those that are there."""
        rows, sequences = block.arrays["rows"].copy(), block.arrays["sequences"].copy()
        rows["file"] = file
        rows["first_sequence"] += self._lengths["sequences"]
        rows["text_start"] += self._lengths["texts"]
        sequences["ids_start"] += self._lengths["ids"]
        sequences["spans_start"] += self._lengths["spans"]
        sequences["row"] += self._lengths["rows"]
        for name, array in (block.arrays | {"rows": rows, "sequences": sequences}).items():
            self._files[f"{name}.bin"].write(array.tobytes())
            self._lengths[name] += len(array)
        for finding in block.findings:
            self._files[FINDINGS].write(json.dumps([file, *finding]).encode() + b"\n")

    def finish(self, facts: dict[str, Any]) -> None:
        """Close the arrays and write what they are."""
        self._stack.close()
        content = {
            "format_version": FORMAT_VERSION,
            **facts,
            "lengths": self._lengths,
            "sha256": {name: file.digest.hexdigest() for name, file in self._files.items()},
        }
        sealed = {**content, SEAL: sha256_json(content)}
        (self.folder / "store.json").write_text(to_json(sealed), encoding="utf-8")


@dataclass
class _Hashed:
    stream: BinaryIO

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.stream.write(data)


class TokenStore:
    """A finished store.

    Args:
        folder: Written by `StoreWriter`.

    Attributes:
        facts: What `StoreWriter.finish` was given, with lengths and digests.
        rows: One entry a row; see `ftkit.data.arrays.ROW`.
        sequences: One entry a sequence; see `ftkit.data.arrays.SEQUENCE`.

    Raises:
        DamagedStoreError: A file is missing, or a byte of one has changed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.facts: dict[str, Any] = _facts(folder)
            self._files = {name: (folder / name).open("rb", buffering=0) for name in _names()}
            for name, file in self._files.items():
                if _sha256(file) != self.facts["sha256"][name]:
                    raise DamagedStoreError(f"{folder / name}: has changed since it was written")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # nothing is wrong with the store
            raise DamagedStoreError(str(error)) from None
        self.folder = folder
        self.rows = self._read("rows", 0, self.facts["lengths"]["rows"])
        self.sequences = self._read("sequences", 0, self.facts["lengths"]["sequences"])
        for name in ("rows.bin", "sequences.bin"):  # they are in memory, and a process may not have many files open
            self._files.pop(name).close()

    @property
    def digest(self) -> str:
        """Of everything that is trained on."""
        kept = {name: self.facts["sha256"][f"{name}.bin"] for name in ("rows", "sequences", "ids", "spans")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def ids(self, sequence: int) -> np.ndarray:
        """Token ids of one sequence."""
        entry = self.sequences[sequence]
        return self._read("ids", int(entry["ids_start"]), int(entry["length"]))

    def ids_between(self, first: int, last: int) -> np.ndarray:
        """Token ids of the sequences from ``first`` up to but not including ``last``, one after another."""
        if first == last:
            return np.zeros(0, TYPES["ids"])
        start, end = self.sequences[first], self.sequences[last - 1]
        begin = int(start["ids_start"])
        return self._read("ids", begin, int(end["ids_start"]) + int(end["length"]) - begin)

    def spans(self, sequence: int) -> np.ndarray:
        """Where tokens count, (spans, 2): first and one past the last."""
        entry = self.sequences[sequence]
        return self._read("spans", int(entry["spans_start"]), int(entry["spans"]))

    def texts(self, row: int) -> dict[str, Any]:
        """``asked``: question and answer of each sequence; ``system``: the system prompt, where there is one.

        Of plain text only ``begins``.
        """
        entry = self.rows[row]
        raw = self._read("texts", int(entry["text_start"]), int(entry["text_length"]))
        return dict(json.loads(raw.tobytes()))

    def findings(self) -> Iterator[tuple[int, str, int, str, str]]:
        """What is suspicious, in file order: file, code, number of the row, what follows its place, detail."""
        self._files[FINDINGS].seek(0)
        for line in io.BufferedReader(io.FileIO(os.dup(self._files[FINDINGS].fileno()))):
            yield tuple(json.loads(line))

    def _read(self, name: str, start: int, count: int) -> np.ndarray:
        dtype = TYPES[name]
        raw = bytearray(count * dtype.itemsize)
        view, done = memoryview(raw), 0
        while done < len(raw):  # one call reads at most 2 GiB
            read = os.preadv(self._files[f"{name}.bin"].fileno(), [view[done:]], start * dtype.itemsize + done)
            if read == 0:
                raise DamagedStoreError(f"{self.folder}: {name}.bin became shorter while it was in use")
            done += read
        return np.frombuffer(raw, dtype.base).reshape(count, *dtype.shape)


def _facts(folder: Path) -> dict[str, Any]:
    """What store.json says, if it is what was written."""
    path = folder / "store.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if facts["format_version"] != FORMAT_VERSION:
        raise DamagedStoreError(f"{path}: of another version")
    if facts.pop(SEAL) != sha256_json(facts):
        raise DamagedStoreError(f"{path}: has changed since it was written")
    return facts


def _names() -> list[str]:
    return [*(f"{name}.bin" for name in TYPES), FINDINGS]


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while data := file.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()
