"""Random choices that are the same on every machine and under every version of Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

TEN_THOUSANDTHS = 10_000


def number_of(*parts: str | int) -> int:
    """A number of 64 bits that depends on all parts and on nothing else."""
    # Unit separators, so that ("ab", "c") and ("a", "bc") differ.
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Draw:
    """A stream of choices named by its parts.

    Uses the generator's raw bits alone. How `random.Random` makes ranges, shuffles and samples from them has changed
    between versions of Python and may again.
    """

    def __init__(self, *parts: str | int) -> None:
        self._random = random.Random(number_of(*parts))

    def below(self, limit: int) -> int:
        """A whole number from 0 to ``limit - 1``."""
        return self._random.getrandbits(64) % limit

    def between(self, first: int, last: int) -> int:
        """A whole number from ``first`` to ``last``, both included."""
        return first + self.below(last - first + 1)

    def chance(self, share: float) -> bool:
        """True in ``share`` of the draws, to a ten-thousandth."""
        return self.below(TEN_THOUSANDTHS) < round(share * TEN_THOUSANDTHS)

    def one(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order (Fisher-Yates)."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
