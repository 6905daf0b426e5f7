"""The kinds of files that documents are read from: one file each, and the table that lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ftkit.errors import Problem
from ftkit.rag.document import Document
from ftkit.rag.loaders.markdown import load_markdown
from ftkit.rag.loaders.pdf import load_pdf
from ftkit.rag.loaders.plain import load_plain
from ftkit.rag.loaders.rows import load_rows
from ftkit.rag.loaders.web import load_web

__all__ = ["LOADERS", "Loader"]


class Loader(Protocol):
    """Reads the documents of one file.

    What it cannot read is a `Problem` among them, with the file and, where there is one, the line; it raises only
    `MissingPartError`, when its library is not installed. A document's id begins with ``name``.
    """

    def __call__(self, path: Path, name: str) -> Iterator[Document | Problem]:
        """The documents of the file ``path``, which the corpus calls ``name``."""
        ...


LOADERS: dict[str, Loader] = {
    "": load_plain,  # README, LICENSE, copyright
    ".txt": load_plain,
    ".text": load_plain,
    ".rst": load_plain,
    ".md": load_markdown,
    ".markdown": load_markdown,
    ".html": load_web,
    ".htm": load_web,
    ".pdf": load_pdf,
    ".csv": load_rows,
    ".tsv": load_rows,
    ".jsonl": load_rows,
    ".ndjson": load_rows,
}
