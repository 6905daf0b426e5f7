"""How often an epoch takes which row: caps, weights and replay, drawn by seed.

Every draw orders rows by a hash of their content and the seed and takes the first ones. It does not depend on where
rows stand, a row more or less changes at most one other row's luck, and a smaller draw is part of a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftkit.data.rows import Indices, Mask, Role, Rows, Words, mix64

_COPY_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class SourceMix:
    """What a recipe says about one source.

    Attributes:
        role: What its rows are for.
        weight: How often an epoch takes each row of a training source.
        max_rows: Take at most so many rows of a training or replay source.
    """

    role: Role
    weight: float = 1.0
    max_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch.

    Attributes:
        rows: In file order, a row that is taken twice standing twice.
        left_out: Rows that their source's weight leaves out.
        not_drawn: Replay rows that were not drawn.
        replay_repeats: How often the replay row that is taken most often is taken; 0 without replay, more than 1
            where there are too few replay rows for their share.
    """

    rows: Indices
    left_out: Indices
    not_drawn: Indices
    replay_repeats: int


@dataclass(frozen=True, kw_only=True)
class Total:
    """What one source contributes to an epoch, repeats included."""

    rows: int
    tokens: int
    supervised: int


def draw_order(digest: Words, seed: int) -> Indices:
    """A random order of rows that depends on content and seed alone.

    Copies of one row are drawn independently of each other; the n-th copy, not the place it stands at, decides.

    Args:
        digest: (rows, 2); see `ftkit.data.rows.Rows`.
        seed: Of the draw.
    """
    by_content = np.lexsort((digest[:, 1], digest[:, 0]))
    ranked = digest[by_content]
    is_first = np.ones(len(ranked), bool)
    is_first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    copy = np.empty(len(ranked), np.uint64)
    copy[by_content] = np.arange(len(ranked)) - np.repeat(starts, np.diff(starts, append=len(ranked)))
    salt = mix64(np.array([seed], np.uint64) + _COPY_STEP)
    luck = mix64(mix64(digest[:, 0] ^ salt) + digest[:, 1] + copy * _COPY_STEP)
    return np.argsort(luck, kind="stable")


def beyond(digest: Words, max_rows: int, seed: int) -> Mask:
    """True for the rows of a source that a cap of ``max_rows`` leaves out."""
    result = np.ones(len(digest), bool)
    result[draw_order(digest, seed)[:max_rows]] = False
    return result


def times_taken(digest: Words, total: int, seed: int) -> Indices:
    """How often to take each row so that ``total`` are taken: each equally often, and a drawn part once more."""
    result = np.full(len(digest), total // max(len(digest), 1), np.int64)
    result[draw_order(digest, seed)[: total % max(len(digest), 1)]] += 1
    return result


def mix_epoch(rows: Rows, train: Indices, sources: Sequence[SourceMix], *, share: float, seed: int) -> Epoch:
    """Decide what one epoch is made of.

    A source of ``n`` rows with the weight ``w`` gives ``w * n`` of them, rounded, and at least one. Replay rows are
    drawn so that they are ``share`` of all, rounded, and at least one; where there are too few, all are taken equally
    often but for a drawn part that is taken once more. Without any other training row no replay row is drawn.

    Args:
        rows: All rows.
        train: Those that may be trained on, of training and replay sources, ascending.
        sources: By the number that ``rows.source`` has.
        share: Of replay rows in an epoch, from 0 to below 1.
        seed: Of the draws.
    """
    taken = np.zeros(len(train), np.int64)
    source = rows.source[train]
    is_replay = np.array([one.role == "replay" for one in sources], bool)[source]
    for number, mix in enumerate(sources):
        here = np.flatnonzero(source == number)
        if mix.role == "train" and len(here):
            total = max(1, math.floor(mix.weight * len(here) + 0.5))
            taken[here] = times_taken(rows.digest[train[here]], total, seed)
    replay = np.flatnonzero(is_replay)
    trained = int(taken.sum())
    if len(replay) and trained and share > 0:
        total = max(1, math.floor(share * trained / (1 - share) + 0.5))
        taken[replay] = times_taken(rows.digest[train[replay]], total, seed)
    return Epoch(
        rows=np.repeat(train, taken),
        left_out=train[(taken == 0) & ~is_replay],
        not_drawn=train[(taken == 0) & is_replay],
        replay_repeats=int(taken[replay].max(initial=0)),
    )


def totals(rows: Rows, epoch: Indices, sources: int) -> list[Total]:
    """What each source contributes to an epoch, by its number."""
    taken = np.bincount(rows.source[epoch], minlength=sources)
    sums = np.zeros((2, sources), np.int64)
    np.add.at(sums[0], rows.source[epoch], rows.tokens[epoch])
    np.add.at(sums[1], rows.source[epoch], rows.supervised[epoch])
    return [
        Total(rows=int(count), tokens=int(tokens), supervised=int(supervised))
        for count, tokens, supervised in zip(taken, *sums, strict=True)
    ]
