"""Which rows are trained on, which are held back, and why each of the others is left out.

The order is fixed, and a row is left out for the first reason that applies:

1. ``max_rows``: a training or replay source with more rows is cut down to a drawn part ("beyond max_rows").
2. Length: rows whose longest sequence is over the limit go, on both sides ("longer than max_length").
3. Split: a fraction of the training sources' groups is held back. Replay rows are never held back.
4. Duplicates and leaks among what is left are counted, and left out of training where the recipe says so ("also in
   validation", "also in evaluation", "duplicate", "near-duplicate"). What is held back stays as it is, so that the
   measure does not move with the training data.
5. Weights and replay decide how often an epoch takes each remaining row ("left out by weight", "not drawn for
   replay"). Held-back rows are neither repeated nor left out.

In a grouped split equal rows of two groups can come to stand on both sides: those are leaks like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftkit.data.mixture import SourceMix, beyond, mix_epoch
from ftkit.data.ngrams import Sequences
from ftkit.data.repeats import Dedup, Found, Repeats, Sides, find_repeats
from ftkit.data.rows import Indices, Mask, Rows
from ftkit.data.split import hold_back

MAX_ROWS_SEARCHED = 100_000  # where near_duplicates is auto: seconds
KEPT = 0


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a recipe says about all rows.

    Attributes:
        validation: Fraction of the training sources' groups to hold back; 0 for none.
        max_length: Rows with a longer sequence are left out; None where none are.
        dedup: What is left out of training because it stands elsewhere too.
        near_duplicates: Whether to look for nearly equal rows; auto: up to 100,000. ``dedup`` near always looks.
        replay_share: Share of replay rows in an epoch.
        seed: Of all draws. The split does not depend on it.
    """

    validation: float = 0.0
    max_length: int | None = None
    dedup: Dedup = "off"
    near_duplicates: Literal["auto"] | bool = "auto"
    replay_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of every row.

    ``rows_in == len(train) + len(validation) + sum(dropped.values())``.

    Attributes:
        rows_in: Rows of training, replay and validation sources; evaluation files are compared with, no more.
        train: Rows that an epoch takes at least once, in file order.
        epoch: Rows of one epoch in file order, a row that is taken twice standing twice.
        validation: Rows held back, in file order.
        dropped: Rows left out, by reason; reasons without rows are not listed.
        duplicates: Training rows whose content stood earlier; like the next three as found before ``dedup`` removed
            any, and before weights and replay were drawn.
        leaks: Validation and evaluation rows whose content is also trained on; each pair is (held back, trained on).
        near_duplicates: Training rows that are near to an earlier one; None where nobody looked.
        near_leaks: Validation and evaluation rows that are near to a training row; None where nobody looked.
        replay_repeats: How often an epoch takes the replay row it takes most often; more than 1 where there are too
            few for their share.
    """

    rows_in: int
    train: Indices
    epoch: Indices
    validation: Indices
    dropped: dict[str, int]
    duplicates: Found
    leaks: Found
    near_duplicates: Found | None
    near_leaks: Found | None
    replay_repeats: int


class _Fates:
    """Why each row is left out; each row's first reason stands."""

    def __init__(self, count: int) -> None:
        self._reasons: list[str] = []
        self._of_row = np.full(count, KEPT, np.int8)

    @property
    def kept(self) -> Mask:
        return np.equal(self._of_row, KEPT)

    def drop(self, rows: Indices, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
        self._of_row[rows[self._of_row[rows] == KEPT]] = self._reasons.index(reason) + 1

    def counts(self) -> dict[str, int]:
        counts = np.bincount(self._of_row, minlength=len(self._reasons) + 1)[1:].tolist()
        return {reason: count for reason, count in zip(self._reasons, counts, strict=True) if count}


def make_plan(
    rows: Rows, sources: Sequence[SourceMix], settings: PlanSettings, sequences: Sequences | None = None
) -> Plan:
    """Decide about every row; see the head of this file for the order.

    Args:
        rows: All rows of all sources.
        sources: By the number that ``rows.source`` has.
        settings: For all rows.
        sequences: Token ids of all rows. Read only where nearly equal rows are looked for; None: nobody looks.

    Raises:
        ValueError: ``dedup`` is near and ``sequences`` are not given.
    """
    is_train, is_replay, is_validation, is_evaluation = (
        np.array([one.role == role for one in sources], bool)[rows.source]
        for role in ("train", "replay", "validation", "evaluation")
    )
    fates = _Fates(len(rows))
    for number, source in enumerate(sources):
        if source.max_rows is not None and source.role in ("train", "replay"):
            here = np.flatnonzero(rows.source == number)
            fates.drop(here[beyond(rows.digest[here], source.max_rows, settings.seed)], "beyond max_rows")
    if settings.max_length is not None:
        fates.drop(np.flatnonzero((rows.longest > settings.max_length) & ~is_evaluation), "longer than max_length")
    candidates = np.flatnonzero(is_train & fates.kept)
    is_held = is_validation & fates.kept
    is_held[candidates] = hold_back(rows.group[candidates], settings.validation)
    sides = Sides(
        train=np.flatnonzero((is_train | is_replay) & fates.kept & ~is_held),
        validation=np.flatnonzero(is_held),
        evaluation=np.flatnonzero(is_evaluation),
    )
    repeats = _repeats(rows, sides, settings, sequences)
    for reason, gone in repeats.removed.items():
        fates.drop(gone, reason)
    left = sides.train[fates.kept[sides.train]]
    epoch = mix_epoch(rows, left, sources, share=settings.replay_share, seed=settings.seed)
    fates.drop(epoch.left_out, "left out by weight")
    fates.drop(epoch.not_drawn, "not drawn for replay")
    return Plan(
        rows_in=int((~is_evaluation).sum()),
        train=left[fates.kept[left]],
        epoch=epoch.rows,
        validation=sides.validation,
        dropped=fates.counts(),
        duplicates=repeats.duplicates,
        leaks=repeats.leaks,
        near_duplicates=repeats.near_duplicates,
        near_leaks=repeats.near_leaks,
        replay_repeats=epoch.replay_repeats,
    )


def _repeats(rows: Rows, sides: Sides, settings: PlanSettings, sequences: Sequences | None) -> Repeats:
    wanted = settings.dedup == "near" or settings.near_duplicates is True
    if settings.near_duplicates == "auto":
        wanted = wanted or len(sides.train) + len(sides.held) <= MAX_ROWS_SEARCHED
    return find_repeats(
        rows.digest, sides, dedup=settings.dedup, sequences=sequences if wanted else None, seed=settings.seed
    )
