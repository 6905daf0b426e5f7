"""In which order spans of an index's passages are tried as answers: spread over documents, and stable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ftkit.rag.boilerplate import Boilerplate
from ftkit.rag.passage import Passage
from ftkit.rag.spans import Span, answer_spans


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A span to be asked for.

    Attributes:
        passage: That holds it.
        span: Its offsets count in the passage's text.
        fault: Why it is not asked for; None where it is.
    """

    passage: Passage
    span: Span
    fault: str | None = None

    @property
    def start(self) -> int:
        """The span's first character in the document's stored text."""
        return self.passage.start + self.span.start

    @property
    def end(self) -> int:
        """One past its last."""
        return self.passage.start + self.span.end


def draw_spans(passages: Sequence[Passage], *, seed: int) -> list[Drawn]:
    """Every span of every passage, once, in the order in which they are tried.

    Each document gives one in turn, so that a few long ones do not crowd out the rest. What a document gives, and
    where it stands among the others, follows from its id and text alone: documents that are added stand between the
    ones that were there and do not shuffle them. Noun-like phrases come after a document's names, numbers and dates,
    which make questions with one answer. A passage that stands in several documents is tried in the first of them.
    What stands in very many of them is boilerplate: it keeps its place, with the fault that it is not asked for.

    Args:
        passages: Of the index.
        seed: Of the order.
    """
    waiting: dict[str, list[Drawn]] = {}
    known: dict[str, list[Span]] = {}
    found: list[tuple[Passage, list[Span]]] = []
    firsts: list[tuple[Passage, list[Span]]] = []
    for passage in sorted(passages, key=lambda passage: (passage.document, passage.start)):
        if passage.content not in known:
            known[passage.content] = answer_spans(passage.text, context=passage.context)
            firsts.append((passage, known[passage.content]))
        found.append((passage, known[passage.content]))
    boilerplate = Boilerplate(found)
    for passage, spans in firsts:
        waiting.setdefault(passage.document, []).extend(
            Drawn(passage=passage, span=span, fault=boilerplate.fault(passage, span)) for span in spans
        )
    placed: list[tuple[int, str, Drawn]] = []
    for document, drawn in waiting.items():
        drawn.sort(key=lambda one: (one.span.kind == "phrase", _draw(seed, document, one.start, one.passage.content)))
        placed += [(turn, _draw(seed, document, turn), one) for turn, one in enumerate(drawn)]
    placed.sort(key=lambda one: one[:2])
    return [one for _, _, one in placed]


def first_asked(drawn: Sequence[Drawn], most: int) -> Sequence[Drawn]:
    """Those up to the last of the first ``most`` that are asked for; the others cost no pass and take no place."""
    asked = 0
    for at, one in enumerate(drawn):
        asked += one.fault is None
        if asked > most:
            return drawn[:at]
    return drawn


def _draw(seed: int, *what: object) -> str:
    # Not hash(): it differs from process to process.
    return hashlib.sha256(repr((seed, *what)).encode()).hexdigest()
