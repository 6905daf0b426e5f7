"""Canary questions: what a former evaluation answered, and what has become of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import DataError
from ftkit.evaluate.metrics import squad_words
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.index import Index
from ftkit.rag.measuring import text_sha256
from ftkit.rag.outcomes import Outcome


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One question that is not as it was.

    Attributes:
        id: Of the question.
        question: Its text.
        before: The former answer; None where the system abstained.
        now: The present one.
        blame: The step that lost it, or ``correct``.
    """

    id: str
    question: str
    before: str | None
    now: str | None
    blame: str


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A question whose answer rests on other documents, or rested on a text that is no more.

    Attributes:
        id: Of the question.
        question: Its text.
        documents: Those that are cited in one run alone; or those whose cited text is not in the index any more.
    """

    id: str
    question: str
    documents: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Present against former answers, over the questions of both runs.

    Attributes:
        compared: How many.
        broken: Right before, wrong now.
        mended: Wrong before, right now.
        changed: Another answer, right or wrong; SQuAD's normalisation aside.
        cited_others: The passages that the reader was given come from other documents.
        stale: A passage that the former answer was given from is not in the index any more: its document was changed
            or removed, so whoever kept that answer holds an old one.
    """

    compared: int
    broken: tuple[Drift, ...]
    mended: tuple[Drift, ...]
    changed: tuple[Drift, ...]
    cited_others: tuple[Moved, ...]
    stale: tuple[Moved, ...]

    def to_dict(self) -> dict[str, Any]:
        """As ``baseline`` of ``--json``."""
        return asdict(self)


def read_baseline(path: Path) -> dict[str, dict[str, Any]]:
    """The answers of an evaluation that was saved, by the question's id.

    Raises:
        DataError: It is none.
    """
    fix = "Save one with: ftkit rag eval DIR --data FILE --save FILE"
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))["answers"]
        found = {str(one["id"]): one for one in answers}
        for one in found.values():
            _ = (one["text"], one["blame"], [(cited["document"], cited["text_sha256"]) for cited in one["citations"]])
    except FileNotFoundError:
        raise DataError(f"{path}: is no file", fix=fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no saved evaluation: {error}", fix=fix) from None
    return found


def compare_runs(before: dict[str, dict[str, Any]], now: Evaluation, index: Index) -> Comparison:
    """What has changed since a former evaluation.

    Args:
        before: From `read_baseline`.
        now: Of the same questions, or some of them.
        index: That was asked now.

    Raises:
        DataError: No question is in both.
    """
    pairs = [(before[one.question.id], one) for one in now.outcomes if one.question.id in before]
    if not pairs:
        raise DataError("no question of these is in the baseline", fix="Ask the questions that it was made with.")
    live = _live_texts(index)
    moved = [(one, _other_documents(old, one)) for old, one in pairs]
    stale = [(one, _gone_documents(old, live)) for old, one in pairs]
    return Comparison(
        compared=len(pairs),
        broken=tuple(_drift(old, one) for old, one in pairs if _was_right(old) and not one.right),
        mended=tuple(_drift(old, one) for old, one in pairs if not _was_right(old) and one.right),
        changed=tuple(_drift(old, one) for old, one in pairs if _words(old["text"]) != _words(one.text)),
        cited_others=tuple(_moved(one, documents) for one, documents in moved if documents),
        stale=tuple(_moved(one, documents) for one, documents in stale if documents),
    )


def _was_right(old: dict[str, Any]) -> bool:
    return bool(old["blame"] == "correct")


def _words(text: str | None) -> list[str] | None:
    return None if text is None else squad_words(text)


def _drift(old: dict[str, Any], now: Outcome) -> Drift:
    question = now.question
    return Drift(id=question.id, question=question.question, before=old["text"], now=now.text, blame=now.blame)


def _moved(now: Outcome, documents: tuple[str, ...]) -> Moved:
    return Moved(id=now.question.id, question=now.question.question, documents=documents)


def _other_documents(old: dict[str, Any], now: Outcome) -> tuple[str, ...]:
    former = {str(cited["document"]) for cited in old["citations"]}
    return tuple(sorted(former ^ {cited.document for cited in now.measured.citations}))


def _gone_documents(old: dict[str, Any], live: Callable[[str], set[str]]) -> tuple[str, ...]:
    gone = {
        str(cited["document"]) for cited in old["citations"] if cited["text_sha256"] not in live(cited["document"])
    }
    return tuple(sorted(gone))


def _live_texts(index: Index) -> Callable[[str], set[str]]:
    known: dict[str, set[str]] = {}

    def of(document: str) -> set[str]:
        if document not in known:
            known[document] = {text_sha256(passage.text) for passage in index.passages_of(document)}
        return known[document]

    return of
