"""A passage as it is found, and what encoder and reader see of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from ftkit.rag.document import Value


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A part of a stored document.

    Attributes:
        id: In its index; another index has other ids.
        document: Id of the document.
        version: Of the index that it was found in.
        start: Its first character in the document's stored text.
        end: One past its last character.
        text: The characters between the two.
        context: Headings above it, or the header of its table; see `ftkit.rag.document.Chunk`.
        metadata: Of the document.
    """

    id: int
    document: str
    version: int
    start: int
    end: int
    text: str
    context: str
    metadata: dict[str, Value] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What encoder, lexical index and reader see."""
        return content_of(self.context, self.text)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage and why it was found.

    Attributes:
        passage: It.
        score: By which hits are ordered, higher is better: cosine (or dot product), BM25, fused ranks, or the
            reranker's.
        ranks: Its rank, from 1, in each search that was asked.
    """

    passage: Passage
    score: float
    ranks: dict[str, int]


def content_of(context: str, text: str) -> str:
    """Context above text."""
    return f"{context}\n{text}" if context else text


def content_sha256(content: str) -> bytes:
    """Names a passage's content: equal passages share one vector, whichever document they stand in."""
    return hashlib.sha256(content.encode()).digest()
