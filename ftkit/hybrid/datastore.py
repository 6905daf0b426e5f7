"""What a model's last layer gave before each token of some texts, and which token came: memory without training.

A datastore is a folder: shards of keys and values in safetensors, each with a list of the texts that its entries come
from, in their order; and datastore.json, which names them. A shard that it does not name is the remains of a killed
process.

Source:
    Khandelwal et al. 2020, arXiv:1911.00172.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from ftkit.errors import DataError, ModelError
from ftkit.files import folder_lock, inside, new_file, new_folder, require_empty, sha256_file, sha256_json, write_json
from ftkit.hybrid.reading import require_probabilities
from ftkit.hybrid.remembered import Pair, Source
from ftkit.hybrid.shards import Shard, filled_shards, sources_in
from ftkit.pipeline.target import Target
from ftkit.rag.threshold import generator_sha256

DATASTORE = "datastore.json"
FORMAT_VERSION = 2
ROWS_AT_ONCE = 16_384  # of a shard, while searching
# Distances from products of float32 differ in their last digits from what they are: all keys that are this near to
# the last one wanted (as a part of the largest squared length) are measured once more, in float64.
NEAR = 1e-5
Precision = Literal["float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest entries to some states, nearest first.

    Attributes:
        distances: Squared, (states, neighbours), float64.
        tokens: That came next, (states, neighbours).
    """

    distances: Tensor
    tokens: Tensor

    def log_probs(self, vocabulary: int, temperature: float) -> Tensor:
        """Log-probability of every token: entries count by ``softmax(-distance / temperature)``, those of one token
        together; a token without an entry has ``-inf``.

        Returns:
            (states, vocabulary), float64.
        """
        shares = torch.softmax(-self.distances / temperature, dim=1)
        found = torch.zeros(len(shares), vocabulary, dtype=torch.float64)
        return found.scatter_add_(1, self.tokens, shares).log()


@dataclass(frozen=True, kw_only=True)
class Datastore:
    """An open datastore; what is added later is in the one that `add` gives back.

    Attributes:
        folder: Where it lies.
        generator: Digest of the model that made the keys; see `ftkit.rag.threshold.generator_sha256`.
        precision: dtype of the keys.
        shards: In the order of their making.
        forgotten: Digests of texts that count no more (see `without`); they stay in the files.
    """

    folder: Path
    generator: str
    precision: Precision
    shards: tuple[Shard, ...]
    forgotten: frozenset[str] = frozenset()

    @property
    def entries(self) -> int:
        """Tokens that are remembered, forgotten ones among them."""
        return sum(shard.entries for shard in self.shards)

    @cached_property
    def sources(self) -> frozenset[Source]:
        """What they come from."""
        return frozenset(source for some in self._sources for source, _ in some)

    @cached_property
    def is_empty(self) -> bool:
        """Whether everything is forgotten."""
        return all(kept is not None and not kept.any() for kept in self._kept)

    @property
    def sha256(self) -> str:
        """Identity of all that decides what is found."""
        shards = [shard.sha256 for shard in self.shards]
        return sha256_json([self.generator, *shards, *([sorted(self.forgotten)] if self.forgotten else [])])

    def without(self, texts: Set[str]) -> Datastore:
        """The same, in which these texts count no more either, nor questions that were answered from them.

        Args:
            texts: Digests; see `ftkit.hybrid.remembered.source_of`. Those that are not in it change nothing.
        """
        there = {one for source in self.sources for one in (source.sha256, *source.rests_on)}
        return replace(self, forgotten=self.forgotten | (there & texts))

    def require_generator(self, target: Target) -> None:
        """Refuse a model whose states cannot be compared with the keys.

        Raises:
            ModelError: Another model made them.
        """
        digest = generator_sha256(target)
        if digest != self.generator:
            raise ModelError(
                f"{self.folder}: was made by a model of digest {self.generator[:12]}…, this one has {digest[:12]}…",
                fix="Build the datastore again with this model.",
            )

    def add(self, target: Target, texts: Iterable[str | Pair]) -> Datastore:
        """Remember more, without training.

        Args:
            target: The model that made it.
            texts: See `build_datastore`.

        Returns:
            The datastore with them.
        """
        self.require_generator(target)
        with folder_lock(self.folder):
            store = _read(self.folder)
            named = {shard.file for shard in store.shards}
            for path in self.folder.glob("shard-*.safetensors"):
                if path.name not in named:
                    path.unlink()
            return replace(_extended(store, target, texts), forgotten=self.forgotten)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values, some thousand entries at a time, from files that are mapped and not loaded."""
        for shard, kept in zip(self._mapped, self._kept, strict=True):
            keys, values = shard.get_slice("keys"), shard.get_slice("values")
            for start in range(0, keys.get_shape()[0], ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                if kept is None:
                    yield keys[rows].float(), values[rows].long()
                elif (here := kept[rows]).any():
                    yield keys[rows][here].float(), values[rows][here].long()

    def nearest(self, states: Tensor, count: int) -> Neighbours:
        """The nearest entries by Euclidean distance, over every one of them.

        Args:
            states: (states, width), float32.
            count: Entries for each, fewer where there are no more, none where `is_empty`. Of equally near ones the
                earlier come first.
        """
        best: list[tuple[Tensor, Tensor]] = [
            (torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.long)) for _ in states
        ]
        for (keys, values), lengths in zip(self.blocks(), self._lengths, strict=True):
            # The state's own length is the same for all of its distances.
            rough = lengths - 2 * states @ keys.T
            last = rough.topk(min(count, len(keys)), dim=1, largest=False).values[:, -1]
            slack = NEAR * (states.square().sum(dim=1) + lengths.max())
            for row, state in enumerate(states):
                places = (rough[row] <= last[row] + slack[row]).nonzero().squeeze(1)
                exact = (keys[places].double() - state.double()).square().sum(dim=1)
                distances = torch.cat([best[row][0], exact])
                tokens = torch.cat([best[row][1], values[places]])
                order = distances.argsort(stable=True)[:count]
                best[row] = (distances[order], tokens[order])
        return Neighbours(
            distances=torch.stack([one for one, _ in best]), tokens=torch.stack([one for _, one in best])
        )

    @cached_property
    def _lengths(self) -> list[Tensor]:
        """Squared, of the keys of each block: four bytes an entry, which spare every search half of its work."""
        return [keys.square().sum(dim=1) for keys, _ in self.blocks()]

    @cached_property
    def _sources(self) -> list[list[tuple[Source, int]]]:
        """Of each shard, with the number of entries of each, in their order."""
        found = []
        for shard, mapped in zip(self.shards, self._mapped, strict=True):
            try:
                found.append(sources_in(mapped.metadata(), entries=shard.entries))
            except (ValueError, KeyError, TypeError) as error:
                what = f"{self.folder / shard.file}: does not say what its entries come from: {error}"
                raise DataError(what, fix="Build the datastore again.") from None
        return found

    @cached_property
    def _kept(self) -> list[Tensor | None]:
        """Of each shard, which entries count, (entries,), bool; None for all."""
        if not self.forgotten:
            return [None] * len(self.shards)
        return [
            torch.cat([torch.full((count,), not source.is_any_of(self.forgotten)) for source, count in some])
            for some in self._sources
        ]

    @cached_property
    def _mapped(self) -> list[Any]:
        return [safe_open(inside(self.folder, shard.file), framework="pt") for shard in self.shards]


def build_datastore(
    target: Target, texts: Iterable[str | Pair], folder: Path, *, precision: Precision = "float16"
) -> Datastore:
    """Let a model read texts, and keep what it thought before each token.

    Args:
        target: Gives probabilities.
        texts: Of a text every token is remembered, of a question's answer its tokens and the one that ends it. They
            are read one by one, so no more than a shard of entries is ever in memory.
        folder: New or empty.
        precision: dtype of the keys.

    Raises:
        DataError: There is no token to remember, or one does not fit the model.
        ModelError: The model gives no probabilities.
        OutputError: The folder holds something.
    """
    require_probabilities(target)
    require_empty(folder)
    digest = generator_sha256(target)
    with new_folder(folder) as partial:
        store = _extended(Datastore(folder=partial, generator=digest, precision=precision, shards=()), target, texts)
    return replace(store, folder=folder)


def open_datastore(folder: Path) -> Datastore:
    """Open a datastore and check that its files are those that were written.

    Raises:
        DataError: It is none, or is damaged.
    """
    store = _read(folder)
    for shard in store.shards:
        path = inside(folder, shard.file)
        if not path.is_file() or sha256_file(path) != shard.sha256:
            raise DataError(f"{path}: is missing or damaged", fix="Put back a copy, or build the datastore again.")
    return store


def copy_datastore(store: Datastore, folder: Path, *, generator: str) -> Datastore:
    """Copy a datastore for a copy of its model whose weights have other names, as an exported adapter's have.

    Args:
        store: Open.
        folder: New.
        generator: Digest of that copy. Nothing here can prove that it thinks like the original: whoever copies does.
    """
    with new_folder(folder) as partial:
        for shard in store.shards:
            shutil.copyfile(inside(store.folder, shard.file), partial / shard.file)
        _describe(replace(store, folder=partial, generator=generator))
    return open_datastore(folder)


def _extended(store: Datastore, target: Target, texts: Iterable[str | Pair]) -> Datastore:
    shards = list(store.shards)
    for filled in filled_shards(target, texts, getattr(torch, store.precision)):
        path = store.folder / f"shard-{len(shards):05d}.safetensors"
        with new_file(path) as stream:
            stream.write(filled.to_bytes())
        shards.append(Shard(file=path.name, entries=len(filled.values), sha256=sha256_file(path)))
    if len(shards) == len(store.shards):
        raise DataError("there is no token to remember", fix="Give texts, or questions with answers.")
    # Whoever reads sees all of it or nothing.
    extended = replace(store, shards=tuple(shards))
    _describe(extended)
    return extended


def _describe(store: Datastore) -> None:
    values = {key: value for key, value in asdict(store).items() if key not in ("folder", "forgotten")}
    write_json(store.folder / DATASTORE, {"format_version": FORMAT_VERSION, **values})


def _read(folder: Path) -> Datastore:
    path = folder / DATASTORE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another format")
        shards = tuple(Shard(**one) for one in values.pop("shards"))
        if not shards or values["precision"] not in ("float16", "float32"):
            raise ValueError("it names no shards, or no precision of keys")
        for shard in shards:
            inside(folder, shard.file)
        return Datastore(folder=folder, shards=shards, **values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Build the datastore again.") from None
