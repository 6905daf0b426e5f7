"""Which examples meet in one optimizer step, and how a step is cut into forward passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler

from ftkit.data.example import TokenizedExample, lengths_of
from ftkit.data.stream import StreamedExamples

# Tokens in one forward pass. On a CPU small passes are at least as fast as large ones, whose activations leave its
# caches, and take less memory; a GPU wants large ones.
TOKENS_PER_PASS = {"cpu": 512, "cuda": 8192}
# Tokens in one pack. Shorter on a GPU than a pass of rows: there a pack is attended to with a mask over all pairs of
# its tokens (see `ftkit.train.documents`), so attention takes time and memory that grow with the square of this.
TOKENS_PER_PACK = {"cpu": 512, "cuda": 2048}


class Examples(Dataset[TokenizedExample]):
    """Examples as torch's loaders take them."""

    def __init__(self, examples: Sequence[TokenizedExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TokenizedExample:
        return self.examples[index]


class StepSampler(Sampler[int]):
    """Seeded order of examples; those of one step stand together, the longest first.

    Sorting inside a step pads little and changes nothing: a step's gradient is a sum over its examples. The longest
    first, so that a step which does not fit fails at once.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples in one optimizer step.
        seed: Of the order; each epoch has its own.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = self._order(self.epoch)
        for start in range(0, len(order), self.batch_size):
            yield from self._step(order, start)

    def rows_of(self, step: int) -> list[int]:
        """The examples of an optimizer step, counted from 1 over all epochs, in their order."""
        epoch, number = divmod(step - 1, math.ceil(len(self) / self.batch_size))
        return self._step(self._order(epoch), number * self.batch_size)

    def _order(self, epoch: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order: list[int] = torch.randperm(len(self.lengths), generator=generator).tolist()
        return order

    def _step(self, order: Sequence[int], start: int) -> list[int]:
        step = order[start : start + self.batch_size]
        return sorted(step, key=lambda index: -self.lengths[index])


class InOrder(StepSampler):
    """The order of a stream, which is random already; its lengths are not known beforehand.

    Args:
        count: Examples.
        batch_size: Examples in one optimizer step.
    """

    def __init__(self, count: int, *, batch_size: int) -> None:
        super().__init__([0] * count, batch_size=batch_size, seed=0)

    def _order(self, epoch: int) -> Sequence[int]:
        del epoch
        return range(len(self))


def sampler_of(examples: Sequence[TokenizedExample], *, batch_size: int, seed: int) -> StepSampler:
    """The order that examples are trained in."""
    if isinstance(examples, StreamedExamples):
        return InOrder(len(examples), batch_size=batch_size)
    return StepSampler(lengths_of(examples), batch_size=batch_size, seed=seed)


def choose_micro_batch_size(lengths: Sequence[int], *, batch_size: int, device_type: str) -> int:
    """The largest divisor of ``batch_size`` whose forward passes stay within the device's token budget."""
    typical = sorted(lengths)[int(0.95 * (len(lengths) - 1))]
    budget = TOKENS_PER_PASS.get(device_type, TOKENS_PER_PASS["cpu"])
    fitting = [size for size in range(1, batch_size + 1) if batch_size % size == 0 and size * typical <= budget]
    return max(fitting, default=1)


def tokens_per_pack(device_type: str) -> int:
    """Tokens that a pack may have on a device, where its longest example alone has no more."""
    return TOKENS_PER_PACK.get(device_type, TOKENS_PER_PACK["cpu"])


def count_steps(rows: int, *, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps for that many rows; the last step of an epoch may be smaller."""
    steps = math.ceil(epochs * math.ceil(rows / batch_size))
    return min(steps, max_steps or steps)
