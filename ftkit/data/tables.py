"""What was gathered, as planning and training want it: a table of rows, their token ids, their examples."""

from __future__ import annotations

import tempfile

import numpy as np

from ftkit.data.gather import Gathered
from ftkit.data.ngrams import Sequences
from ftkit.data.rows import Indices, Rows
from ftkit.data.stored import StoredExamples

IDS_IN_MEMORY = 64 << 20  # 256 MiB


def row_table(gathered: Gathered) -> Rows:
    """What planning knows of every row."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in Rows.__dataclass_fields__}
    for named in gathered.stores:
        rows, sequences = named.store.rows, named.store.sequences
        count = len(rows)
        owner = sequences["row"]
        longest = np.zeros(count, np.int32)
        np.maximum.at(longest, owner, sequences["length"])
        columns["source"].append(np.full(count, named.source, np.int16))
        columns["digest"].append(rows["digest"])
        columns["group"].append(rows["group"])
        columns["longest"].append(longest)
        columns["tokens"].append(np.bincount(owner, sequences["length"], count).astype(np.int64))
        columns["supervised"].append(np.bincount(owner, sequences["supervised"], count).astype(np.int64))
    empty = Rows(
        source=np.zeros(0, np.int16), digest=np.zeros((0, 2), np.uint64), group=np.zeros(0, np.uint64),
        longest=np.zeros(0, np.int32), tokens=np.zeros(0, np.int64), supervised=np.zeros(0, np.int64),
    )  # fmt: skip
    return Rows(**{name: np.concatenate([getattr(empty, name), *found]) for name, found in columns.items()})


def token_ids(gathered: Gathered) -> Sequences:
    """The token ids of each row's last sequence, which holds the whole conversation."""
    lasts = [named.store.rows["first_sequence"] + named.store.rows["sequences"] - 1 for named in gathered.stores]
    lengths = [named.store.sequences["length"][last] for named, last in zip(gathered.stores, lasts, strict=True)]
    offsets = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
    ids = _room_for(int(offsets[-1]))
    done = 0
    for named, last in zip(gathered.stores, lasts, strict=True):
        for start in range(0, len(last), 10_000):
            some = last[start : start + 10_000]
            if int(some[-1]) - int(some[0]) == len(some) - 1:
                found = named.store.ids_between(int(some[0]), int(some[-1]) + 1)
            else:
                found = np.concatenate([named.store.ids(int(sequence)) for sequence in some])
            ids[done : done + len(found)] = found
            done += len(found)
    return Sequences(ids=ids, offsets=offsets)


def _room_for(tokens: int) -> np.ndarray:
    """An array of ids: in memory, or in a file without a name where that would take too much of it."""
    if tokens <= IDS_IN_MEMORY:
        return np.zeros(tokens, np.int32)
    with tempfile.TemporaryFile() as stream:
        return np.memmap(stream, np.int32, "w+", shape=(tokens,))


def examples_of(gathered: Gathered, rows: Indices, max_length: int) -> StoredExamples:
    """The sequences of some rows, in their order."""
    counts = [named.store.rows["sequences"].astype(np.int64) for named in gathered.stores]
    first = [named.store.rows["first_sequence"] for named in gathered.stores]
    which = np.repeat(np.arange(len(counts)), [len(one) for one in counts])
    many = np.concatenate([np.zeros(0, np.int64), *counts])[rows]
    starts = np.concatenate([np.zeros(0, np.int64), *first])[rows]
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    chosen = np.stack([np.repeat(which[rows], many), np.repeat(starts, many) + within], axis=1)
    return StoredExamples(gathered.stores, chosen.astype(np.int64), max_length)
