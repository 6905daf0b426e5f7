"""What a log of `ftkit serve --log` says: answers, what people said of them, and what must not be used.

One JSON line an event, only ever appended:

    {"version": 1, "kind": "exchange", "id", "time", "model", "digest", "consent", "finish_reason", "counts", and only
     with consent "messages", "tools", "answer", "citations", "abstained"}
    {"version": 1, "kind": "feedback", "id", "time", and some of "rating", "correction", "withdrawn"}

The last rating and the last correction of an answer count; a later "up" without a correction takes an earlier one
back. A withdrawal counts for good, wherever it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ftkit.errors import DataError, Problem

VERSION = 1
EXCHANGE, FEEDBACK = "exchange", "feedback"
Rating = Literal["up", "down"]
RATINGS = ("up", "down")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An answered request, with the last word on it.

    Attributes:
        id: Of the response.
        place: File and line.
        consent: Whether it may be learnt from.
        messages: Before the answer; empty without consent.
        tools: That were offered.
        answer: That was given.
        finish_reason: ``stop`` or ``length``.
        from_documents: Whether it was read from documents, which are not in the log.
        abstained: Whether a system with documents refused.
        rating: The last one; None for none.
        correction: The last one; None for none.
        withdrawn: Whether it must never be used.
    """

    id: str
    place: str
    consent: bool
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    answer: str = ""
    finish_reason: str = "stop"
    from_documents: bool = False
    abstained: bool = False
    rating: Rating | None = None
    correction: str | None = None
    withdrawn: bool = False


@dataclass(kw_only=True)
class Log:
    """All exchanges of some files, in their order.

    Attributes:
        exchanges: With the last word on each.
        lines: That were read.
        torn: Lines that are no JSON: a write that a full disk or a power cut left unfinished.
        unknown: Lines of feedback on ids that are not in the log.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    lines: int = 0
    torn: int = 0
    unknown: int = 0


def read_log(paths: Sequence[str | Path]) -> Log:
    """Read the files of a log, in the order of time.

    Raises:
        DataError: A file is not there, or a line is JSON but none of a log; all faults are listed.
    """
    log, problems = Log(), []
    feedback: dict[str, list[dict[str, Any]]] = {}
    for path in map(Path, paths):
        try:
            for number, values in _lines(path, log):
                place = f"{path}:{number}"
                if (fault := _fault(values)) is not None:
                    fix = "Name a file that `ftkit serve --log` wrote."
                    problems.append(Problem(where=place, what=fault, fix=fix))
                elif values["kind"] == EXCHANGE:
                    log.exchanges.append(_exchange(values, place))
                else:
                    feedback.setdefault(values["id"], []).append(values)
        except OSError as error:
            problems.append(Problem(where=str(path), what=f"cannot be read: {error.strerror}", fix="Name a file."))
    if problems:
        raise DataError(problems)
    known = {one.id for one in log.exchanges}
    log.unknown = sum(len(said) for one, said in feedback.items() if one not in known)
    log.exchanges = [_with_feedback(one, feedback.get(one.id, [])) for one in log.exchanges]
    return log


def _lines(path: Path, log: Log) -> Iterator[tuple[int, Any]]:
    """The values of a file's lines; those that are no JSON are counted."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            log.lines += 1
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                log.torn += 1
                continue
            yield number, values


def _fault(values: Any) -> str | None:
    """What is wrong with a line; None for nothing."""
    if not isinstance(values, dict) or values.get("kind") not in (EXCHANGE, FEEDBACK):
        return "is no line of a log"
    if values.get("version") != VERSION:
        return f"is of version {values.get('version')!r} of the log, not {VERSION}"
    wanted: dict[str, Any] = {"id": str}
    if values["kind"] == EXCHANGE:
        wanted |= {"consent": bool, "finish_reason": str}
        if values.get("consent") is True:
            wanted |= {"messages": list, "answer": str}
    for key, kind in wanted.items():
        if not isinstance(values.get(key), kind):
            return f"{key}: is not there, or of another type than it should be"
    for key in ("messages", "tools"):
        entries = values.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            return f"{key}: is not a list of objects"
    if values.get("rating") not in (None, *RATINGS):
        return f"rating: {values['rating']!r} is not up or down"
    if not isinstance(values.get("correction"), str | None):
        return "correction: is not text"
    return None


def _exchange(values: dict[str, Any], place: str) -> Exchange:
    return Exchange(
        id=values["id"],
        place=place,
        consent=values["consent"],
        messages=tuple(values.get("messages", ())),
        tools=tuple(values.get("tools", ())),
        answer=values.get("answer", ""),
        finish_reason=values["finish_reason"],
        from_documents="citations" in values,
        abstained=values.get("abstained") is True,
    )


def _with_feedback(one: Exchange, said: Sequence[dict[str, Any]]) -> Exchange:
    for values in said:
        rating, correction = values.get("rating"), values.get("correction")
        if correction is None and rating != "up":  # who rates an answer up by now takes back what should replace it
            correction = one.correction
        one = replace(
            one,
            rating=rating or one.rating,
            correction=correction,
            withdrawn=one.withdrawn or values.get("withdrawn") is True,
        )
    return one
