"""A validation split that depends on content alone."""

from __future__ import annotations

import numpy as np

from ftkit.data.rows import Mask, Words


def hold_back(groups: Words, fraction: float) -> Mask:
    """Hold back about ``fraction`` of the groups, each chosen by its own hash.

    A group is below the fraction of the range of hashes or it is not, so it stays on its side when rows are added,
    removed or shuffled, and its rows stay together. With two or more groups and a fraction above zero neither side
    is empty: the group with the least hash is held back where no other is, the one with the greatest is trained on
    where all would be held back. A single group is trained on.

    Args:
        groups: Hash of each row's group: of its content, where rows are not grouped.
        fraction: From 0 to below 1.

    Returns:
        True for the rows held back.
    """
    if fraction == 0 or not len(groups):
        return np.zeros(len(groups), bool)
    limit = np.uint64(int(fraction * 2**64))
    least, greatest = np.uint64(groups.min()), np.uint64(groups.max())
    if least == greatest:
        return np.zeros(len(groups), bool)
    if least >= limit:
        return np.equal(groups, least)
    if greatest < limit:
        return np.not_equal(groups, greatest)
    return np.less(groups, limit)
