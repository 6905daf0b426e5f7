"""Training rows tokenised as they are needed, for data that is larger than the disk.

Nothing is kept but a window of rows, so nothing can be known of all rows: the split is decided by each row's own
hash, the order is shuffled within windows, and a row at fault stops the run when its turn comes. The first rows are
read before anything else, and tell what the report, the split and the memory estimate need.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np

from ftkit.data.arrays import group_key
from ftkit.data.block import BlockReader, LineFault
from ftkit.data.chat import RenderFault
from ftkit.data.encode import example_of
from ftkit.data.example import TokenizedExample
from ftkit.data.formats import RowFault
from ftkit.data.sources import Block, place
from ftkit.errors import DataError, Problem

WINDOW = 2048  # rows that are shuffled among each other
MOST_OPEN = 64  # files read at a time; systems let a process open some hundreds

Opened = tuple[BlockReader, str, Iterator[Block]]


class StreamedExamples(Sequence[TokenizedExample]):
    """Examples in a fixed random order, made when they are asked for; asking for earlier ones starts over.

    Args:
        open_sources: Starts all sources from the beginning: of each a reader, its name and its blocks.
        length: How many examples to give. When the sources end they are read once more.
        is_held: Whether a row with this group key is held back.
        max_length: Longest example in tokens.
        overflow: What becomes of longer ones.
        seed: Of the order within windows.
        first_lengths: Tokens of the rows that were looked at beforehand.
    """

    def __init__(
        self,
        open_sources: Callable[[], list[Opened]],
        *,
        length: int,
        is_held: Callable[[int], bool],
        max_length: int,
        overflow: str,
        seed: int,
        first_lengths: np.ndarray,
    ) -> None:
        self._open = open_sources
        self._length = length
        self._is_held = is_held
        self._max_length, self._overflow = max_length, overflow
        self._seed = seed
        self.lengths = first_lengths
        self._rows: Iterator[TokenizedExample] = iter(())
        self._window: list[TokenizedExample] = []
        self._number = -1  # of the window at hand

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedExample]: ...

    def __getitem__(self, index: int | slice) -> TokenizedExample | list[TokenizedExample]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._length))]
        if not 0 <= index < self._length:
            raise IndexError(index)
        number, within = divmod(index, WINDOW)
        if number < self._number:
            self._number = -1
        while self._number < number:
            self._advance()
        return self._window[within]

    def _advance(self) -> None:
        if self._number < 0:
            self._rows = self._endless()
        # Nothing is at hand until the window is whole: asked again after a fault, the stream comes to it again. And
        # two windows at a time would take twice the memory.
        number, self._number, self._window = self._number + 1, -1, []
        rows = list(itertools.islice(self._rows, WINDOW))
        order = np.random.default_rng([self._seed, number]).permutation(len(rows))
        self._window = [rows[at] for at in order]
        self._number = number

    def _endless(self) -> Iterator[TokenizedExample]:
        while True:
            found = False
            for example in self._once():
                found = True
                yield example
            if not found:
                raise DataError("no row is left to train on", fix="Raise data.max_length, or give more data.")

    def _once(self) -> Iterator[TokenizedExample]:
        """All rows of all files, a row of each in turn; of many files, another begins where one ends."""
        waiting = (self._of_source(*opened) for opened in self._open())
        running = list(itertools.islice(waiting, MOST_OPEN))
        while running:
            for source in list(running):
                row = next(source, None)
                if row is None:
                    running.remove(source)
                    running += itertools.islice(waiting, 1)
                else:
                    yield from row

    def _of_source(self, reader: BlockReader, name: str, blocks: Iterator[Block]) -> Iterator[list[TokenizedExample]]:
        """The sequences of each row that is trained on."""
        for block in blocks:
            if block.problems:
                raise DataError(block.problems)
            for number, line in zip(block.numbers, block.lines.split(b"\n")[:-1], strict=True):
                found = self._examples(reader, line, place(name, block.style, number))
                if found:
                    yield found

    def _examples(self, reader: BlockReader, line: bytes, where: str) -> list[TokenizedExample]:
        try:
            sample = reader.sample(line, where)
            if self._is_held(group_key(sample)):
                return []
            examples = [example_of(encoded, sample) for encoded in reader.encoder.encode(sample)]
        except LineFault as fault:
            raise DataError(fault.problem) from None
        except (RowFault, RenderFault) as fault:
            field = f"{where}: {fault.field}" if fault.field else where
            raise DataError(Problem(where=field, what=fault.what, fix=fault.fix)) from None
        longest = max(len(example.input_ids) for example in examples)
        if longest <= self._max_length:
            return examples
        if self._overflow == "drop":
            return []
        if self._overflow == "error":
            what = f"{longest} tokens, data.max_length is {self._max_length}"
            fix = "Raise data.max_length, or choose data.overflow: drop or truncate."
            raise DataError(Problem(where=where, what=what, fix=fix))
        cut = [example.cut(self._max_length) for example in examples]
        if not all(example.supervised_tokens for example in cut):
            what = "no token of this row counts towards the loss"
            fix = "Raise data.max_length so that its answer is not cut off, or remove the row."
            raise DataError(Problem(where=where, what=what, fix=fix))
        return cut
