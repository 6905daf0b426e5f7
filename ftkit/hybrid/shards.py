"""Shards of a datastore: keys, values, and the texts that they come from, in their order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from safetensors.torch import save
from torch import Tensor

from ftkit.errors import DataError
from ftkit.hybrid.reading import force
from ftkit.hybrid.remembered import Pair, Source, examples_of
from ftkit.pipeline.target import Target

ENTRIES_PER_SHARD = 65_536
SOURCES = "sources"  # in the metadata of a file


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Attributes: file: Its name. entries: In it. sha256: Of the file."""

    file: str
    entries: int
    sha256: str


@dataclass(kw_only=True)
class Filling:
    """A shard in the making.

    Attributes:
        keys: Blocks of them, (entries, width).
        values: Tokens.
        sources: In their order, with how many entries each.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    sources: list[tuple[Source, int]] = field(default_factory=list)

    def put(self, source: Source, keys: Tensor, tokens: Sequence[int]) -> None:
        """Behind what is there."""
        self.keys.append(keys)
        self.values += tokens
        self.sources.append((source, len(tokens)))

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        tensors = {"keys": torch.cat(self.keys), "values": torch.tensor(self.values, dtype=torch.int32)}
        named = [[source.sha256, source.is_answer, source.rests_on, count] for source, count in self.sources]
        return bytes(save(tensors, metadata={SOURCES: json.dumps(named)}))


def filled_shards(target: Target, texts: Iterable[str | Pair], dtype: torch.dtype) -> Iterator[Filling]:
    """Let a model read texts one by one; a shard is given as soon as it is full.

    Raises:
        DataError: The model's states do not fit the dtype.
    """
    filling = Filling()
    for source, example in examples_of(target, texts):
        # Alone: in company its last digits would depend on what it was built with.
        read = force(target, [example])[0]
        kept = read.hidden.to(dtype)
        if not kept.isfinite().all():
            what = f"{example.place}: the model's states are beyond what float16 holds"
            raise DataError(what, fix="Build with precision float32.")
        filling.put(source, kept, read.tokens)
        if len(filling.values) >= ENTRIES_PER_SHARD:
            yield filling
            filling = Filling()
    if filling.values:
        yield filling


def sources_in(metadata: Mapping[str, str], *, entries: int) -> list[tuple[Source, int]]:
    """What `Filling.to_bytes` wrote of the sources.

    Raises:
        ValueError: They do not account for all entries; this, KeyError or TypeError where it wrote nothing.
    """
    found = [
        (Source(sha256=own, is_answer=is_answer, rests_on=tuple(others)), count)
        for own, is_answer, others, count in json.loads(metadata[SOURCES])
    ]
    if (told := sum(count for _, count in found)) != entries:
        raise ValueError(f"it tells of {told} entries and has {entries}")
    return found
