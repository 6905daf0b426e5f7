"""The frozen test: questions that every candidate is judged on, that nothing learns from, and that never change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.data.formats.fields import RowFault
from ftkit.data.formats.messages import FORMAT
from ftkit.errors import DataError, OutputError, Problem
from ftkit.files import sha256_file, write_json, write_text
from ftkit.improve.keys import is_telling
from ftkit.recipe import ImproveSpec

FROZEN, MESSAGES = "frozen.json", "frozen.jsonl"
FEWEST_QUESTIONS = 20  # of fewer a bootstrap's intervals are too narrow to decide by


@dataclass(frozen=True, kw_only=True)
class Question:
    """One of the test.

    Attributes:
        messages: That are answered.
        answers: Right ones, at least one; the first is the one whose likelihood is measured.
        cluster: What it is resampled with, such as the document that it is about.
        tools: That are offered.
    """

    messages: tuple[dict[str, Any], ...]
    answers: tuple[str, ...]
    cluster: str
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def asks(self) -> tuple[str, ...]:
        """What nothing may learn: all that the person said, and of several turns the last one asked alone."""
        last = [one for one in self.messages if one.get("role") == "user"][-1:]
        whole, alone = user_text(self.messages), user_text(last)
        return (whole, alone) if alone != whole and is_telling(alone) else (whole,)

    @property
    def line(self) -> str:
        """As a row of chat data."""
        answer = {"role": "assistant", "content": self.answers[0]}
        tools = {"tools": list(self.tools)} if self.tools else {}
        return json.dumps({"messages": [*self.messages, answer], **tools}) + "\n"


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The test as it is now. Attributes: questions: all of them. sha256: of the file. lines: as chat data."""

    questions: tuple[Question, ...]
    sha256: str

    @property
    def lines(self) -> str:
        """As rows of chat data."""
        return "".join(one.line for one in self.questions)


def user_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """What the person says in a conversation."""
    return "\n".join(str(one.get("content") or "") for one in messages if one.get("role") == "user")


def read_frozen(path: str | Path) -> Frozen:
    """Read a test.

    Raises:
        DataError: Naming every fault; or there are too few questions to decide by.
    """
    path = Path(path)
    questions, problems = [], []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 may stand in a text
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Name a file of JSON lines.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            questions.append(_question(json.loads(line), str(number)))
        except (ValueError, RecursionError) as error:
            fix = 'Write {"messages": [..., {"role": "assistant", ...}]} or {"question": ..., "answers": [...]}.'
            problems.append(Problem(where=f"{path}:{number}", what=str(error), fix=fix))
    if problems:
        raise DataError(problems)
    if len(questions) < FEWEST_QUESTIONS:
        raise DataError(
            f"{path}: has {len(questions)} questions; fewer than {FEWEST_QUESTIONS} decide nothing",
            fix="Add questions before the first use; afterwards it must not change.",
        )
    return Frozen(questions=tuple(questions), sha256=sha256_file(path))


def hold_frozen(spec: ImproveSpec, folder: Path, frozen: Frozen) -> Path:
    """Keep the digests of what candidates are judged on, or refuse others than those that are kept.

    Args:
        spec: Names the files.
        folder: Of the output.
        frozen: The test as it is now.

    Returns:
        The test as chat data.

    Raises:
        OutputError: The test, or the text of forgetting, is another than at first use.
    """
    text = spec.gate.forgetting
    general = None if text is None else sha256_file(Path(text))
    kept_at = folder / FROZEN
    if not kept_at.is_file():
        write_json(
            kept_at,
            {"test": frozen.sha256, "forgetting": general, "questions": len(frozen.questions), "path": spec.test},
        )
    kept = json.loads(kept_at.read_text(encoding="utf-8"))
    if kept["test"] != frozen.sha256:
        raise OutputError(
            f"{spec.test}: is another test (SHA-256 {frozen.sha256[:16]}…) than at first use ({kept['test'][:16]}…): "
            "a test that moves is no test",
            fix="Put it back, or begin with another test in another output.",
        )
    if kept["forgetting"] is None and general is not None:
        write_json(kept_at, kept | {"forgetting": general})
    elif general not in (None, kept["forgetting"]):
        raise OutputError(f"{text}: was changed since its first use", fix="Put it back, or use another output.")
    write_text(folder / MESSAGES, frozen.lines)
    return folder / MESSAGES


def _question(row: Any, number: str) -> Question:
    if not isinstance(row, Mapping):
        raise ValueError("is not an object")
    before: tuple[dict[str, Any], ...]
    answers: tuple[str, ...]
    if "messages" in row:
        messages = row["messages"]
        if not isinstance(messages, list) or len(messages) < 2 or not all(isinstance(one, dict) for one in messages):
            raise ValueError("messages: is not a list of a question and its answer")
        last = messages[-1]
        if last.get("role") != "assistant" or not isinstance(last.get("content"), str) or not last["content"].strip():
            raise ValueError("messages: the last is not the assistant's answer")
        before, answers = tuple(messages[:-1]), (str(last["content"]),)
        _require_chat(row)
    else:
        asked, given = row.get("question"), row.get("answers")
        if row.get("tools"):
            raise ValueError("tools: belong to rows of messages")
        given = [given] if isinstance(given, str) else given
        if not isinstance(asked, str) or not asked.strip():
            raise ValueError("has neither messages nor a question")
        if not isinstance(given, list) or not given or not all(_is_text(one) for one in given):
            raise ValueError("answers: is not a list of texts")
        before, answers = ({"role": "user", "content": asked},), tuple(given)
    if not user_text(before).strip():
        raise ValueError("messages: the user says nothing")
    document = row.get("document")
    return Question(
        messages=before,
        answers=answers,
        cluster=f"document {document}" if isinstance(document, str) else f"line {number}",
        tools=tuple(row.get("tools") or ()),
    )


def _require_chat(row: Mapping[str, Any]) -> None:
    """Refuse what no model could be asked, before one is loaded."""
    try:
        FORMAT.read({key: row[key] for key in ("messages", "tools") if row.get(key) is not None})
    except RowFault as fault:
        raise ValueError(f"{fault.field}: {fault.what}") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
