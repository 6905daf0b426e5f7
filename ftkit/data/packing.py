"""Which examples of one optimizer step share a sequence, so that none of it is padding."""

from __future__ import annotations

import bisect
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Put items into packs of at most ``limit``, by best fit in decreasing order.

    The longest first, each into the fullest pack that still has room for it: never more than 11/9 of the fewest
    packs possible, plus one. The same lengths always give the same packs.

    Args:
        lengths: Of each item, at least 1.
        limit: Of the sum of a pack; a longer item stands in a pack of its own.

    Returns:
        Packs in the order in which they were opened, so that the longest item is in the first; in each the indices of
        its items, the longest first. Each index stands in exactly one pack.

    Source:
        Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms".
    """
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, pack), ascending: the first with enough room is the fullest
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        at = bisect.bisect_left(rooms, (length, -1))
        if at < len(rooms):
            room, pack = rooms.pop(at)
        else:
            room, pack = limit, len(packs)
            packs.append([])
        packs[pack].append(index)
        bisect.insort(rooms, (room - length, pack))
    return packs
