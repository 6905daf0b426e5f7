"""Question sets: what is asked, what is right, and in which documents it stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.data.sources import parse_line, place
from ftkit.errors import DataError, Problem

TEXTS = 'Write a list of texts: ["one answer"], or [] where no document answers it.'


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """One question of a set.

    Attributes:
        question: The text.
        answers: Each of them is right; empty where no document answers it, and abstaining is right.
        documents: Ids of the documents that the answer needs; empty where the set names none.
        id: Unique in its set; the question itself where the set gives none.
        place: File and line.
    """

    question: str
    answers: tuple[str, ...]
    documents: tuple[str, ...] = ()
    id: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or self.question)


def read_questions(path: str | Path) -> list[AskedQuestion]:
    """Read a JSON Lines file of questions.

    Each line is an object with ``question`` and ``answers``, and perhaps ``document`` or ``documents`` and ``id``;
    other keys are ignored, as are blank lines.

    Raises:
        DataError: Naming every fault.
    """
    found: list[AskedQuestion] = []
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for where, raw in _lines(Path(path)):
        row = parse_line(raw, where)
        faults = [row] if isinstance(row, Problem) else list(_faults(row, where))
        if isinstance(row, Problem) or faults:
            problems += faults
            continue
        question = _question(row, where)
        first = places.setdefault(question.id, where)
        if first != where:
            what = f"{'the id' if row.get('id') else 'the question'} {question.id[:60]!r} stands in {first} too"
            problems.append(Problem(where=where, what=what, fix="Remove one, or give each an id of its own."))
        found.append(question)
    if not found and not problems:
        problems.append(Problem(where=str(path), what="holds no question", fix="Write one JSON object a line."))
    if problems:
        raise DataError(problems)
    return found


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                if raw.strip():
                    yield place(str(path), "line", number), raw
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path}: is no file", fix="Name a JSON Lines file of questions.") from None


def _faults(row: dict[str, Any], where: str) -> Iterator[Problem]:
    question, answers = row.get("question"), row.get("answers")
    if not isinstance(question, str) or not question.strip():
        what = f"question: {_shown(question)} is not a text" if "question" in row else "has no question"
        yield Problem(where=where, what=what, fix="Write the question under the key 'question'.")
    if "answers" not in row:
        yield Problem(where=where, what="has no answers", fix=TEXTS)
    elif not isinstance(answers, list) or not all(isinstance(one, str) and one.strip() for one in answers):
        yield Problem(where=where, what=f"answers: {_shown(answers)} is not a list of texts", fix=TEXTS)
    document, documents, own = row.get("document"), row.get("documents"), row.get("id")
    if document is not None and not (isinstance(document, str) and document):
        what = f"document: {_shown(document)} is not the id of a document"
        yield Problem(where=where, what=what, fix="Write it as `ftkit rag show DIR` does, or leave it out.")
    if documents is not None and not (
        isinstance(documents, list) and all(isinstance(one, str) and one for one in documents)
    ):
        what = f"documents: {_shown(documents)} is not a list of ids"
        yield Problem(where=where, what=what, fix='Write ["first.md", "second.md"], or leave it out.')
    if own is not None and (isinstance(own, bool) or not isinstance(own, (str, int))):
        yield Problem(where=where, what=f"id: {_shown(own)} is neither text nor number", fix="Write it as text.")


def _question(row: dict[str, Any], where: str) -> AskedQuestion:
    named = [*(row.get("documents") or ()), *([row["document"]] if row.get("document") else ())]
    return AskedQuestion(
        question=row["question"],
        answers=tuple(row["answers"]),
        documents=tuple(dict.fromkeys(named)),
        id="" if row.get("id") is None else str(row["id"]),
        place=where,
    )


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]


def document_groups(asked: Sequence[AskedQuestion]) -> list[str]:
    """Of each question, a name of all documents that belong together with its own.

    Documents that one question needs together belong together, and so do all that are linked in this way. The name is
    the first of their ids, or the question's text where it names none.
    """
    links = _Links()
    for one in asked:
        for document in one.documents[1:]:
            links.link(one.documents[0], document)
    return [
        f"document {links.first(one.documents[0])}" if one.documents else f"question {one.question}" for one in asked
    ]


def question_groups(asked: Sequence[AskedQuestion]) -> list[str]:
    """The same, with questions in the same words together too, whatever documents they name.

    For judging what has learnt from other questions. A split is drawn by `document_groups` alone, whose names, and so
    the sides of questions, have stood since before.
    """
    links, groups = _Links(), document_groups(asked)
    of_words: dict[str, str] = {}
    for one, group in zip(asked, groups, strict=True):
        links.link(of_words.setdefault(plain_words(one.question), group), group)
    return [links.first(group) for group in groups]


def plain_words(question: str) -> str:
    """A question without case and spaces at which two in the same words may differ."""
    return " ".join(question.casefold().split())


class _Links:
    """Names that belong together; all that do go by the first of them."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def first(self, name: str) -> str:
        while (above := self._above.get(name, name)) != name:
            name = above
        return name

    def link(self, one: str, other: str) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        self._above[high] = low


def split_questions(asked: Sequence[AskedQuestion], share: float) -> tuple[list[AskedQuestion], list[AskedQuestion]]:
    """Training and held-back questions, with no document on both sides.

    The side is drawn by the name of each group of documents (see `document_groups`), so that it stays as it is when
    questions are added or shuffled, unless they link what was apart.

    Args:
        asked: All of them.
        share: Held back, from 0 to below 1.
    """

    def place(name: str) -> float:
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48

    held = [place(name) < share for name in document_groups(asked)]
    return (
        [one for one, is_held in zip(asked, held, strict=True) if not is_held],
        [one for one, is_held in zip(asked, held, strict=True) if is_held],
    )
