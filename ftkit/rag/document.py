"""What retrieval works on: documents, and the passages that they are cut into."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ftkit.files import sha256_json

Value = str | int | float | bool | None
PAGE_BREAK = "\f"


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text with what is known about it.

    Attributes:
        id: Unique in its corpus: the path below its source, with ``#ROW`` for a row of a table.
        text: What the loader read; offsets of passages count its characters. Lines end with a line feed.
        metadata: Title, language and whatever else the source says; ``pages`` of a text that has pages.
    """

    id: str
    text: str
    metadata: dict[str, Value] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of text and metadata, in canonical JSON; another id alone does not change it."""
        return sha256_json({"text": self.text, "metadata": self.metadata})

    def page(self, offset: int) -> int | None:
        """The page, from 1, on which the character at ``offset`` stands; None where a text has no pages."""
        return 1 + self.text.count(PAGE_BREAK, 0, offset) if "pages" in self.metadata else None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A passage of a document: ``document.text[start:end]``.

    Attributes:
        start: Its first character.
        end: One past its last character.
        context: What stands in front of it for the encoder and the reader, on lines of its own: the headings above
            it (``Title > Section``) and, for the later part of a table, the table's header. Not part of the slice;
            empty where there is nothing to say.
    """

    start: int
    end: int
    context: str
