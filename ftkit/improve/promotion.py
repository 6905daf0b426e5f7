"""promoted.json: what is in service, what was before it, and how it came about. Light: a server reads it early."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import OutputError, UsageError
from ftkit.files import write_json

PROMOTED = "promoted.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Service:
    """What answers.

    Attributes:
        place: As `ftkit.pipeline.target.open_target` takes it; relative to the output where it stands there.
        digest: Of what stands there.
        round: That it comes from; None for what was there at the beginning.
    """

    place: str
    digest: str
    round: int | None = None


class Promotions:
    """What was promoted in an output.

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
        first = Service(place=place, digest=digest)
        if not self._path.is_file():
            self._write([first], [_event("began", first)])
            return
        began = self._read()["services"][0]
        if began["digest"] != digest:
            raise OutputError(
                f"current: {place} is not what this output began with ({began['place']})",
                fix="What is in service by now stands in promoted.json. Put `current` back, or use another output.",
            )

    @property
    def services(self) -> list[Service]:
        """What was in service, one after the other; the last one is."""
        return [Service(**one) for one in self._read()["services"]]

    def place_of(self, service: Service) -> str:
        """The place, wherever the output stands now."""
        inside = self._folder / service.place
        return str(inside) if service.round is not None and inside.exists() else service.place

    def promote(self, service: Service) -> None:
        """Put another one into service; nothing happens where it already is."""
        if self.services[-1].digest != service.digest:
            self._write([*self.services, service], [*self._read()["history"], _event("promoted", service)])

    def rollback(self) -> Service:
        """Put back what was in service before.

        Raises:
            UsageError: There is nothing before it.
        """
        if not self._path.is_file() or len(self.services) < 2:
            raise UsageError(f"{self._folder}: nothing was promoted, so there is nothing to go back to", fix="")
        left = self.services[:-1]
        self._write(left, [*self._read()["history"], _event("rolled back to", left[-1])])
        return left[-1]

    def to_dict(self) -> dict[str, Any]:
        """What is in service, for people."""
        last = self.services[-1]
        return {**asdict(last), "place": self.place_of(last)}

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
    """What an output has in service; any other place is itself."""
    folder = Path(place)
    if not (folder / PROMOTED).is_file():
        return place
    promotions = Promotions(folder)
    return promotions.place_of(promotions.services[-1])


def _event(what: str, service: Service) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"time": now, "event": what, "place": service.place, "digest": service.digest, "round": service.round}
