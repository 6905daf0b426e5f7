"""Documents into an index, out of it, and back: each call is one new version, or none."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ftkit.errors import DataError, Problem
from ftkit.files import require_space
from ftkit.nearest import did_you_mean
from ftkit.rag import store
from ftkit.rag.chunking import chunk
from ftkit.rag.document import Chunk, Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.passage import content_of, content_sha256
from ftkit.rag.schema import transaction
from ftkit.rag.settings import IndexSettings
from ftkit.rag.vectors import VectorFile, Vectors, checksums
from ftkit.train.progress import ProgressBar

# Passages embedded between two commits: what a kill can cost.
EMBEDDED_AT_ONCE = 2048
# The nearest known name takes milliseconds to find, and an index may hold a million.
MOST_NAMES_COMPARED = 1000


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was done to an index.

    Attributes:
        version: That is searched now.
        added: Ids of new documents.
        replaced: Ids of documents with a new text.
        removed: Ids of documents that are gone.
        unchanged: Ids of documents that were given and are as they were.
        embedded: Passages that had to be embedded; the others were known.
    """

    version: int
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    embedded: int = 0


class Growth:
    """Writes to an index whose lock is held.

    Args:
        folder: Of the index.
        database: Open for writing.
        vectors: Its vector file.
        settings: What the index is made with.
    """

    def __init__(
        self, folder: Path, database: sqlite3.Connection, vectors: VectorFile, settings: IndexSettings
    ) -> None:
        self.folder, self.settings = folder, settings
        self._database, self._vectors = database, vectors

    def add(self, documents: Sequence[Document], encoders: EncoderPair) -> Change:
        """See `ftkit.rag.index.Index.add`."""
        _require_sound(documents)
        before = store.live_documents(self._database, {document.id for document in documents})
        known = {document.id: store.revision_of(self._database, document) for document in documents}
        cut = [(document, self._cut(document, encoders)) for document in documents if known[document.id] is None]
        rows, embedded = self._embed(cut, encoders)
        with transaction(self._database):
            for document, chunks in cut:
                found = [rows[content_sha256(content)] for content in _contents(document, chunks)]
                new = store.NewRevision(document=document, chunks=chunks, rows=found)
                known[document.id] = store.put_revision(self._database, new)
            changes = {name: revision for name, revision in known.items() if before.get(name) != revision}
            version = store.head(self._database)
            if changes:
                note = f"{len(changes)} documents added or replaced"
                version = store.change_live(self._database, changes, number=None, note=note)
        return Change(
            version=version,
            added=tuple(name for name in changes if name not in before),
            replaced=tuple(name for name in changes if name in before),
            unchanged=tuple(name for name in known if name not in changes),
            embedded=embedded,
        )

    def remove(self, ids: Sequence[str]) -> Change:
        """See `ftkit.rag.index.Index.remove`."""
        named = dict.fromkeys(ids)
        before = store.live_documents(self._database, named)
        if unknown := [name for name in named if name not in before]:
            every = store.live_documents(self._database)
            known = list(every) if len(every) <= MOST_NAMES_COMPARED else []
            raise DataError(
                [
                    Problem(
                        what=f"{self.folder}: no document {name!r}",
                        fix=did_you_mean(name, known, what="Documents") if known else "",
                    )
                    for name in unknown
                ]
            )
        version = store.head(self._database)
        if named:
            with transaction(self._database):
                note = f"{len(named)} documents removed"
                version = store.change_live(self._database, named, number=None, note=note)
        return Change(version=version, removed=tuple(named))

    def rollback(self, version: int) -> Change:
        """See `ftkit.rag.index.Index.rollback`."""
        known = [info.number for info in store.versions(self._database)]
        if version not in known:
            raise DataError(f"{self.folder}: has no version {version}", fix=f"Versions: {known[0]} to {known[-1]}.")
        before, after = store.live_documents(self._database), store.documents_at(self._database, version)
        changes: dict[str, int | None] = {
            name: after.get(name) for name in {**before, **after} if before.get(name) != after.get(name)
        }
        with transaction(self._database):
            store.change_live(self._database, changes, number=version, note="")
        return Change(
            version=version,
            added=tuple(name for name in changes if name not in before),
            replaced=tuple(name for name in changes if name in before and name in after),
            removed=tuple(name for name in changes if name not in after),
        )

    def _cut(self, document: Document, encoders: EncoderPair) -> list[Chunk]:
        return chunk(
            document,
            limit=self.settings.passage_tokens,
            measure=encoders.document.count,
            overlap=self.settings.overlap_tokens,
        )

    def _embed(
        self, cut: Sequence[tuple[Document, Sequence[Chunk]]], encoders: EncoderPair
    ) -> tuple[dict[bytes, int], int]:
        """The vector row of each passage's content; new ones are embedded and stored, a piece at a time."""
        texts = {
            content_sha256(content): content for document, chunks in cut for content in _contents(document, chunks)
        }
        rows = store.known_rows(self._database, texts)
        missing = [content for content in texts if content not in rows]
        require_space(self.folder, 4 * self.settings.width * len(missing))
        with ProgressBar("embedding", len(missing)) as bar:
            for start in range(0, len(missing), EMBEDDED_AT_ONCE):
                piece = missing[start : start + EMBEDDED_AT_ONCE]
                vectors = encoders.document.vectors([texts[content] for content in piece], "document")
                self._store_vectors(piece, vectors, rows)
                bar.update(start + len(piece))
        return rows, len(missing)

    def _store_vectors(self, contents: Sequence[bytes], vectors: Vectors, rows: dict[bytes, int]) -> None:
        if not np.isfinite(vectors).all():
            raise DataError("the encoder gave NaN or infinite numbers", fix="It is damaged; use another.")
        first = store.vector_rows(self._database)
        self._vectors.append(first, vectors)  # before the database says that they are there
        new = list(zip(range(first, first + len(contents)), contents, checksums(vectors), strict=True))
        with transaction(self._database):
            self._database.executemany("insert into vector values (?,?,?)", new)
        rows.update({content: row for row, content, _ in new})


def _contents(document: Document, chunks: Sequence[Chunk]) -> list[str]:
    return [content_of(one.context, document.text[one.start : one.end]) for one in chunks]


def _require_sound(documents: Sequence[Document]) -> None:
    seen: set[str] = set()
    problems = []
    for document in documents:
        if document.id in seen:
            problems.append(Problem(where=document.id, what="two documents have this id", fix="Rename one of them."))
        if not document.text.strip():
            problems.append(Problem(where=document.id, what="is empty", fix="Leave it out."))
        seen.add(document.id)
    if problems:
        raise DataError(problems)
