"""The rounds of an output: what each learns from, and what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import OutputError
from ftkit.files import PARTIAL_PREFIX, new_folder, write_json
from ftkit.improve.filtering import KEPT, ROWS, Filtered

ROUNDS, ROUND, DATASET, GATE, RUN = "rounds", "round.json", "dataset", "gate.json", "run"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One data set, one candidate, one verdict.

    Attributes:
        number: From 1.
        folder: Where it stands.
        key: Digest of all that decides the training beside the rows.
        sha256: Of the rows.
        ids: That the rows come from.
    """

    number: int
    folder: Path
    key: str
    sha256: str
    ids: frozenset[str]

    @property
    def rows(self) -> Path:
        """What is learnt from."""
        return self.folder / DATASET / ROWS

    @property
    def run(self) -> Path:
        """The training's run folder."""
        return self.folder / RUN

    @property
    def gate(self) -> dict[str, Any] | None:
        """The verdict; None before it."""
        path = self.folder / GATE
        return _read(path) if path.is_file() else None

    def finish(self, gate: dict[str, Any]) -> None:
        """Write the verdict down."""
        write_json(self.folder / GATE, gate)

    def close(self, because: str) -> None:
        """End it without a verdict; another round may come to the same candidate."""
        self.finish({"promoted": False, "because": because, "closed": True})

    def remove(self) -> None:
        """Remove all of it: somebody took back what it learns from."""
        # Renamed first: a removal that is killed must not leave half a round.
        partial = self.folder.rename(self.folder.with_name(f"{PARTIAL_PREFIX}{self.folder.name}"))
        shutil.rmtree(partial)


def rounds_of(folder: Path) -> list[Round]:
    """All rounds of an output, in their order."""
    found = []
    for place in sorted((folder / ROUNDS).glob("[0-9]*")):
        values = _read(place / ROUND)
        try:
            found.append(
                Round(
                    number=values["number"], folder=place, key=values["key"], sha256=values["sha256"],
                    ids=frozenset(values["ids"]),
                )
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise OutputError(f"{place / ROUND}: has no {error}", fix="Remove that folder.") from None
    return found


def begin_round(folder: Path, key: str, filtered: Filtered, *, used: Set[int]) -> Round:
    """Write a round's rows; it is there as a whole or not at all.

    Args:
        folder: Of the output.
        key: Digest of all that decides the training beside the rows.
        filtered: The rows.
        used: Numbers of rounds that were, wherever they are now: a number never stands for two.
    """
    numbers = {int(place.name) for place in (folder / ROUNDS).glob("[0-9]*")}
    number = max(numbers | used, default=0) + 1
    ids = [one.id for one, outcome in zip(filtered.log.exchanges, filtered.outcomes, strict=True) if outcome == KEPT]
    place = folder / ROUNDS / f"{number:04d}"
    with new_folder(place) as partial:
        filtered.write(partial / DATASET)
        (partial / DATASET).chmod(0o700)  # the log that it comes from is readable by its owner alone
        write_json(partial / ROUND, {"number": number, "key": key, "sha256": filtered.sha256, "ids": ids})
    return Round(number=number, folder=place, key=key, sha256=filtered.sha256, ids=frozenset(ids))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path}: cannot be read: {error}", fix="Remove that round's folder.") from None
    if not isinstance(values, dict):
        raise OutputError(f"{path}: is not a JSON object", fix="Remove that round's folder.")
    return values
