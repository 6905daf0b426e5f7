"""Plain text: one document a file, as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftkit.errors import Problem
from ftkit.rag.document import Document
from ftkit.rag.loaders.reading import read_text

# Some ten novels. A longer text is a collection, and what cites it by one name cites nothing.
MAX_BYTES = 32 << 20


def load_plain(path: Path, name: str) -> Iterator[Document | Problem]:
    """The whole file as one document; line ends become line feeds, a byte order mark goes."""
    text = read_text(path, MAX_BYTES)
    yield text if isinstance(text, Problem) else Document(id=name, text=text)
