"""A validation split that depends on content alone."""

from __future__ import annotations

from collections.abc import Sequence

from ftkit.data.sample import Sample


def split_by_content(samples: Sequence[Sample], fraction: float) -> tuple[list[Sample], list[Sample]]:
    """Hold back about ``fraction`` of the rows, chosen by the hash of each row's content.

    A row stays on its side when rows are added, removed or shuffled, and equal rows stay together. With two or more
    different rows and a fraction above zero, neither side is empty; a single one is trained on.

    Returns:
        Training and validation rows, each in the given order.
    """
    if fraction == 0:
        return list(samples), []
    digests = [sample.digest for sample in samples]
    limit = int(fraction * 16**16)
    held = {digest for digest in digests if int(digest[:16], 16) < limit}
    if not held and len(set(digests)) > 1:
        held = {min(digests)}
    if held and len(held) == len(set(digests)):
        held.remove(max(held))
    train = [sample for sample, digest in zip(samples, digests, strict=True) if digest not in held]
    validation = [sample for sample, digest in zip(samples, digests, strict=True) if digest in held]
    return train, validation
