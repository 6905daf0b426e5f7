"""Reciprocal rank fusion (Cormack et al. 2009): searches whose scores cannot be compared are joined by rank."""

from __future__ import annotations

from collections.abc import Sequence

from ftkit.rag.passage import Hit, Passage

K = 60  # of the paper; lower trusts the first ranks more


def fuse(searches: Sequence[Sequence[Hit]], count: int) -> list[Hit]:
    """One list from several.

    The score of a passage is the sum of ``1 / (60 + rank)`` over the searches that found it.

    Args:
        searches: Each best first.
        count: Hits wanted.

    Returns:
        Best first; equally good ones in order of document and place.
    """
    passages: dict[int, Passage] = {}
    ranks: dict[int, dict[str, int]] = {}
    for hits in searches:
        for hit in hits:
            passages[hit.passage.id] = hit.passage
            ranks.setdefault(hit.passage.id, {}).update(hit.ranks)
    scores = {passage: sum(1 / (K + rank) for rank in found.values()) for passage, found in ranks.items()}
    order = sorted(passages, key=lambda one: (-scores[one], passages[one].document, passages[one].start))
    return [Hit(passage=passages[one], score=scores[one], ranks=ranks[one]) for one in order[:count]]
