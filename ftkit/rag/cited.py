"""An answer with its sources, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from ftkit.evaluate.generation import Answer
from ftkit.rag.passage import Hit


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A passage that was given to the reader.

    Attributes:
        document: Id of the document.
        version: Of the index.
        start: First character in the document's stored text.
        end: One past the last.
        text: Those characters.
        score: Of the search, or of the reranker.
    """

    document: str
    version: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Attributes: retrieve, generate: seconds."""

    retrieve: float
    generate: float


@dataclass(frozen=True, kw_only=True)
class CitedAnswer:
    """An answer and where it comes from.

    Attributes:
        text: What the generator said; empty where the system abstained.
        abstained: Whether it gave no answer: the generator said that it does not know, or its confidence is below the
            system's threshold.
        citations: What the generator was given, best first.
        latency_s: Seconds of each step.
        tokens: Generated.
        finish_reason: ``stop`` or ``length``.
        question: That was asked.
        prompt_tokens: What the generator was given, in its tokens.
        confidence: See `ftkit.rag.threshold`; None where the generator said that it does not know, and where it was
            not asked for.
    """

    text: str
    abstained: bool
    citations: tuple[Citation, ...]
    latency_s: Latency
    tokens: int
    finish_reason: str
    question: str = ""
    confidence: float | None = None
    prompt_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Why:
    """What an answer rests on.

    Attributes:
        without: The same generator's answer without any passage.
        hits: The passages that were looked at, with their score and their rank in each search; ``given`` ones first.
        given: How many of them the generator was given.
    """

    without: str
    hits: tuple[Hit, ...]
    given: int


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was said to a question, before it is cited.

    Attributes:
        answer: It.
        given: How many of the passages, from the best, were read for it.
        prompt_tokens: That were read for it, in all prompts together.
    """

    answer: Answer
    given: int
    prompt_tokens: int


def cited(hit: Hit) -> Citation:
    """A passage that was given."""
    passage = hit.passage
    return Citation(
        document=passage.document,
        version=passage.version,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=hit.score,
    )
