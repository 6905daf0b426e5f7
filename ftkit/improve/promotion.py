"""promoted.json: what is in service, what was before it, and how it came about. Light: a server reads it early."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, OutputError, UsageError
from ftkit.files import waiting_lock, write_json
from ftkit.improve.identity import digest_of

PROMOTED, PROMOTED_LOCK = "promoted.json", ".promoted.lock"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Service:
    """What answers.

    Attributes:
        place: As `ftkit.pipeline.target.open_target` takes it; relative to the output where it comes from a round of
            it, else absolute, or the name of a model.
        digest: Of what stands there.
        round: That it comes from; None for what was there at the beginning.
    """

    place: str
    digest: str
    round: int | None = None


class Promotions:
    """What was promoted in an output.

    What is written here has a lock of its own, which is held for moments: whoever wants a promotion back need not
    wait for the training of the next candidate.

    Args:
        folder: The output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / PROMOTED

    def begin(self, place: str, digest: str) -> None:
        """Write down what is in service at the beginning.

        Raises:
            OutputError: The output began with something else.
        """
        # A server may be started in another folder than the one that this was called in.
        began_with = Service(place=str(Path(place).absolute()) if Path(place).exists() else place, digest=digest)
        with self._held():
            if not self._path.is_file():
                self._write([began_with], [_event("began", began_with)])
                return
            first, *later = self.services
            if first.digest != digest:
                raise OutputError(
                    f"current: {place} is not what this output began with ({first.place})",
                    fix="What is in service by now is in promoted.json. Put `current` back, or use another output.",
                )
            if first != began_with:  # it was moved
                self._write([began_with, *later], self._read()["history"])

    @property
    def services(self) -> list[Service]:
        """What was in service, one after the other; the last one is."""
        return [Service(**one) for one in self._read()["services"]]

    def place_of(self, service: Service) -> str:
        """The place, wherever the output stands now."""
        return service.place if service.round is None else str(self._folder / service.place)

    def require_unchanged(self, service: Service) -> str:
        """The place, where what stands there is what was put into service.

        Raises:
            OutputError: It is another, or is gone.
        """
        place = self.place_of(service)
        fix = "Put it back, or go back to what was before it: `ftkit improve SPEC --rollback`."
        try:
            digest = digest_of(place)
        except ModelError as error:
            what = f"{place}: is in service by {self._path}, and is not there: {error.problems[0].what}"
            raise OutputError(what, fix=fix) from None
        if digest != service.digest:
            raise OutputError(
                f"{place}: is not what was put into service by {self._path} (digest {digest[:16]}…, not "
                f"{service.digest[:16]}…)", fix=fix,
            )  # fmt: skip
        return place

    @property
    def rounds(self) -> set[int]:
        """Numbers of all rounds that were ever written of here: none may be given to another."""
        return {one["round"] for one in self._read()["history"] if one["round"] is not None}

    @property
    def promoted(self) -> set[int]:
        """Numbers of all rounds that were ever in service."""
        return {one["round"] for one in self._read()["history"] if one["event"] == "promoted"}

    def promote(self, service: Service, *, after: Service) -> bool:
        """Put another one into service; nothing happens where it already is.

        Args:
            service: The better one.
            after: What it was held against.

        Returns:
            Whether it is in service now; False where something else than ``after`` was by now.
        """
        with self._held():
            values, last = self._read(), self.services[-1]
            if last.digest == service.digest:
                return True
            if last != after:
                return False
            self._write([*self.services, service], [*values["history"], _event("promoted", service)])
        return True

    def note_removed(self, number: int) -> None:
        """Write down that a round is removed, before it is."""
        with self._held():
            values = self._read()
            event = {"time": _now(), "event": "removed", "place": None, "digest": None, "round": number}
            self._write(self.services, [*values["history"], event])

    def rollback(self) -> Service:
        """Put back what was in service before.

        Returns:
            What was taken out of service.

        Raises:
            UsageError: There is nothing before it.
            OutputError: What was before it is gone, or another by now.
        """
        nothing = UsageError(f"{self._folder}: nothing was promoted, so there is nothing to go back to", fix="")
        if not self._path.is_file():
            raise nothing
        with self._held():
            *left, gone = self.services
            if not left:
                raise nothing
            self.require_unchanged(left[-1])
            self._write(left, [*self._read()["history"], _event("rolled back to", left[-1])])
        return gone

    def to_dict(self) -> dict[str, Any]:
        """What is in service, for people."""
        last = self.services[-1]
        return {**asdict(last), "place": self.place_of(last)}

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self._folder}: cannot be written to", fix="Make it writable.")
        with waiting_lock(self._folder / PROMOTED_LOCK):
            yield

    def _read(self) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            if values["format_version"] != FORMAT_VERSION or not values["services"]:
                raise ValueError(f"is of another format than {FORMAT_VERSION}")
            [Service(**one) for one in values["services"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(f"{self._path}: cannot be read: {error}", fix="Use another output.") from None
        return values

    def _write(self, services: list[Service], history: list[dict[str, Any]]) -> None:
        write_json(
            self._path,
            {"format_version": FORMAT_VERSION, "services": [asdict(one) for one in services], "history": history},
        )


def served_place(place: str) -> str:
    """What an output has in service; any other place is itself.

    Raises:
        OutputError: What is in service is gone, or another than the one that was promoted.
    """
    folder = Path(place)
    if not (folder / PROMOTED).is_file():
        return place
    promotions = Promotions(folder)
    return promotions.require_unchanged(promotions.services[-1])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _event(what: str, service: Service) -> dict[str, Any]:
    return {"time": _now(), "event": what, "place": service.place, "digest": service.digest, "round": service.round}
