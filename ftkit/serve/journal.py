"""The log of a server, where somebody asked for one: what was answered, and what people say of it.

Only words that a request gives leave to are written. A line is one write to a file that is only appended to, so a
killed process leaves whole lines, and several servers may share a file.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import UsageError
from ftkit.evaluate.generation import Answer
from ftkit.improve.log import EXCHANGE, FEEDBACK, RATINGS, VERSION
from ftkit.json_lines import UnwritableError, json_line
from ftkit.notices import log
from ftkit.serve.cited import CitedReply
from ftkit.serve.wire import ApiError, read_message

FIELDS = ("id", "rating", "correction", "withdraw")
MODE = 0o600
CONSENT_HEADER = "x-consent"
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a log says of a chat, beside its answer.

    Attributes:
        name: Of what answered, as clients know it.
        consent: Whether the words may be kept.
        messages: As chat templates take them.
        tools: That were offered.
    """

    name: str
    consent: bool
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Feedback. Attributes: as its fields have them; None and False for what is not said."""

    id: str
    rating: str | None
    correction: str | None
    withdrawn: bool


@dataclass
class _Known:
    consent: bool
    withdrawn: bool = False


class Journal:
    """Appends to a log.

    Args:
        path: The file; it is made readable for this account alone.
        digests: Of what answers, by the names that clients use.

    Raises:
        UsageError: It cannot be written to, or is no file.
    """

    def __init__(self, path: Path, digests: Mapping[str, str]) -> None:
        self._path, self._digests = path, digests
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._handle = os.open(path, flags, MODE)
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):
                raise UsageError(f"--log {path}: is not a file", fix="Name a file.")
            os.fchmod(self._handle, MODE)
            self._known: dict[str, _Known] = {}
            self._read_to = 0
            self._read()
        except OSError as error:
            raise UsageError(f"--log {path}: cannot be written: {error.strerror}", fix="Name another file.") from None
        self._lost, self._fault = 0, ""

    @property
    def state(self) -> dict[str, Any]:
        """For /health, which everybody may ask: whether it is written, and how many lines were lost."""
        fault = {"fault": self._fault} if self._fault else {}
        return {"writing": not self._fault, "lost": self._lost, **fault}

    def record(self, answer_id: str, said: Said, answer: Answer, counts: Mapping[str, int]) -> None:
        """Write an answered chat down. Never fails: that an answer was not logged is no reason not to give it."""
        values: dict[str, Any] = {
            **_head(EXCHANGE, answer_id), "model": said.name, "digest": self._digests[said.name],
            "consent": said.consent, "finish_reason": answer.finish_reason,
            "counts": {"messages": len(said.messages), **counts},
        }  # fmt: skip
        if said.consent:
            values |= {"messages": list(said.messages), "answer": answer.text}
            values |= {"tools": list(said.tools)} if said.tools else {}
            if isinstance(answer, CitedReply):
                values |= answer.sources
        try:
            self._append(values)
        except (OSError, UnwritableError) as error:
            self._complain(error)
        else:
            self._known[answer_id] = _Known(said.consent)

    def remark(self, remark: Remark) -> None:
        """Write feedback down.

        Raises:
            ApiError: The id is unknown, its words may not be kept, or nothing can be written.
        """
        with contextlib.suppress(OSError):  # then only what this server knows
            self._read()
        known = self._known.get(remark.id)
        if known is None:
            raise ApiError(404, f"id: {remark.id!r} is no answer in this log", param="id", code="not_found")
        if known.withdrawn and not remark.withdrawn:
            raise ApiError(409, "id: this answer was withdrawn from use", param="id", code="withdrawn")
        if remark.correction is not None and not known.consent:
            raise ApiError(
                409, "correction: nothing of this answer's request may be kept, as it came without consent",
                param="correction", code="no_consent",
            )  # fmt: skip
        said = {key: value for key, value in asdict(remark).items() if key != "id" and value not in (None, False)}
        try:
            self._append({**_head(FEEDBACK, remark.id), **said})
        except (OSError, UnwritableError) as error:
            self._complain(error)
            raise ApiError(503, "the feedback could not be written down; try again", code="log_unwritable") from None
        known.withdrawn = known.withdrawn or remark.withdrawn

    def close(self) -> None:
        """Let the file go."""
        os.close(self._handle)

    def _append(self, values: Mapping[str, Any]) -> None:
        line = json_line(values)
        if self._is_torn():
            line = b"\n" + line
        written = os.write(self._handle, line)
        if written < len(line):
            raise OSError("the disk is full")
        if self._fault:
            log.warning("%s: is written again; %d lines were lost", self._path, self._lost)
            self._fault = ""

    def _is_torn(self) -> bool:
        """Whether the file ends within a line, by a full disk or a power cut: the next one must not go on with it."""
        size = os.fstat(self._handle).st_size
        return size > 0 and os.pread(self._handle, 1, size - 1) != b"\n"

    def _complain(self, error: Exception) -> None:
        """Count a line that is lost, and say so once until it is mended."""
        fault = (error.strerror or str(error)) if isinstance(error, OSError) else "an answer that JSON cannot hold"
        self._lost += 1
        if fault != self._fault:
            log.warning("%s: cannot be written: %s; answers are given all the same", self._path, fault)
        self._fault = fault

    def _read(self) -> None:
        """What was added to the file: feedback may come after a new start, or for what another server answered."""
        with self._path.open("rb") as stream:
            stream.seek(self._read_to)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # torn, or being written: it is read when it is whole
                self._read_to += len(line)
                try:
                    values = json.loads(line)
                    if values["kind"] == EXCHANGE:
                        self._known.setdefault(values["id"], _Known(values["consent"] is True))
                    elif values.get("withdrawn") is True and values["id"] in self._known:
                        self._known[values["id"]].withdrawn = True
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue  # torn; whoever reads the log counts it


def read_said(body: Mapping[str, Any], name: str, consent: bool) -> Said:
    """What of a chat request may be logged. The request was found right before."""
    if not consent:
        return Said(name=name, consent=False, messages=tuple({} for _ in body["messages"]), tools=())
    messages = [read_message(one, f"messages[{index}]") for index, one in enumerate(body["messages"])]
    return Said(name=name, consent=True, messages=tuple(messages), tools=tuple(body.get("tools") or ()))


def take_consent(body: dict[str, Any], header: str | None) -> tuple[dict[str, Any], bool]:
    """The request without what says whether its words may be kept, and whether they may.

    Args:
        body: ``metadata: {"consent": true}`` says that they may.
        header: ``X-Consent: true`` says it too. Where one of the two says no, the answer is no.

    Raises:
        ApiError: Something else is said, or metadata that nothing here would keep.
    """
    metadata = body.get("metadata")
    rest = {key: value for key, value in body.items() if key != "metadata"}
    words = [] if header is None else [("X-Consent", _WORDS.get(header.strip().lower()))]
    if metadata is not None:
        if not isinstance(metadata, dict) or set(metadata) - {"consent"}:
            raise ApiError(
                400, "metadata: only consent is known here", param="metadata", code="unsupported_parameter"
            )
        if "consent" in metadata:
            said = metadata["consent"]
            # OpenAI's clients send metadata as text.
            words.append(("metadata.consent", _WORDS.get(said) if isinstance(said, str) else said))
    for where, word in words:
        if not isinstance(word, bool):
            raise ApiError(400, f"{where}: must be true or false", param=where)
    return rest, bool(words) and all(word for _, word in words)


def read_remark(body: Mapping[str, Any]) -> Remark:
    """Read ``POST /v1/feedback``.

    Raises:
        ApiError: With the field at fault.
    """
    if unknown := [key for key in body if key not in FIELDS]:
        raise ApiError(400, f"{unknown[0]}: is unknown; there is {', '.join(FIELDS)}", param=unknown[0])
    answer_id, rating, correction = body.get("id"), body.get("rating"), body.get("correction")
    withdrawn = body.get("withdraw", False)
    if not isinstance(answer_id, str):
        raise ApiError(400, "id: must be the id of an answer", param="id", code="missing_required_parameter")
    if rating not in (None, *RATINGS):
        raise ApiError(400, f"rating: must be {' or '.join(RATINGS)}", param="rating")
    if correction is not None and (not isinstance(correction, str) or not correction.strip()):
        raise ApiError(400, "correction: must be a text", param="correction")
    if not isinstance(withdrawn, bool):
        raise ApiError(400, "withdraw: must be true or false", param="withdraw")
    if withdrawn and (rating is not None or correction is not None):
        raise ApiError(400, "withdraw: what is withdrawn is not rated or corrected too", param="withdraw")
    if not withdrawn and rating is None:
        raise ApiError(400, "rating: must be up or down", param="rating", code="missing_required_parameter")
    return Remark(id=answer_id, rating=rating, correction=correction, withdrawn=withdrawn)


def _head(kind: str, answer_id: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"version": VERSION, "kind": kind, "id": answer_id, "time": now}
