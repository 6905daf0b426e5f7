"""An index folder: documents that can be added, replaced, removed and put back, and searched at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftkit.errors import DataError, OutputError, Problem
from ftkit.files import folder_lock, new_folder, require_empty, sha256_json
from ftkit.rag import store
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.exported import export_of_index
from ftkit.rag.fusion import fuse
from ftkit.rag.growth import Change, Growth
from ftkit.rag.lexical import TOKENIZERS, search_words
from ftkit.rag.passage import Hit, Passage
from ftkit.rag.schema import DATABASE, create_database, damage_named, open_database
from ftkit.rag.settings import IndexSettings, Mode, read_settings, write_settings
from ftkit.rag.soundness import faults_of
from ftkit.rag.vectors import VectorFile, Vectors, nearest

VECTORS = "vectors.f32"
# Of each search before their ranks are fused.
FUSED_DEPTH = 100
MAX_FAULTS = 20


class Index:
    """An open index. Several threads may search it, and other processes may write while it is open.

    Args:
        folder: Made by `create_index`.
        read_only: Nothing is written, not even beside it.

    Raises:
        DataError: It is no index, is damaged, or is of another format.
    """

    def __init__(self, folder: str | Path, *, read_only: bool = False) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        # An export stays as it was verified.
        self._export = export_of_index(self.folder)
        self.read_only = read_only or self._export is not None or not os.access(self.folder, os.W_OK)
        self._database = open_database(self.folder, read_only=self.read_only)
        self._vectors = VectorFile(self.folder / VECTORS, self.settings.width)
        self._lock = threading.RLock()
        self._live: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self._document_frequency: tuple[int, dict[str, int]] = (-1, {})

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._database.close()

    @property
    def version(self) -> int:
        """The version that the next search sees."""
        with self._reading():
            return store.head(self._database)

    @property
    def documents(self) -> list[str]:
        """Ids of the documents that are searched, in order."""
        with self._reading():
            return sorted(store.live_documents(self._database))

    @property
    def passages(self) -> int:
        """How many passages are searched."""
        with self._reading():
            return len(self._passages()[1])

    @property
    def content_sha256(self) -> str:
        """Of the documents that are searched, whatever became of others."""
        with self._reading():
            sql = "select live.document, sha256 from live join revision on revision.id = revision order by 1"
            return sha256_json([list(row) for row in self._database.execute(sql)])

    def versions(self) -> list[store.VersionInfo]:
        """All that were ever made, oldest first."""
        with self._reading():
            return store.versions(self._database)

    def add(self, documents: Sequence[Document], encoders: EncoderPair) -> Change:
        """Put documents in; one with a known id replaces the former text. The next search sees them.

        Passages that were embedded before, by this or an interrupted call, are not embedded again.

        Raises:
            DataError: Two documents have one id, one is empty, or the encoders are not the index's own.
            OutputError: Another process is writing.
        """
        self.require_encoders(encoders)
        with self._writing() as growth:
            return growth.add(documents, encoders)

    def remove(self, ids: Sequence[str]) -> Change:
        """Take documents out; `rollback` can put them back.

        Raises:
            DataError: One of the ids is not in the index; nothing is removed then.
        """
        with self._writing() as growth:
            return growth.remove(ids)

    def rollback(self, version: int) -> Change:
        """Search a former version again; what came after it is kept and can be rolled back to in its turn.

        Raises:
            DataError: There never was such a version.
        """
        with self._writing() as growth:
            return growth.rollback(version)

    def dense(self, queries: Vectors, count: int, *, encoder_sha256: str) -> list[list[Hit]]:
        """The passages nearest to each query vector, by exact search.

        Args:
            queries: (queries, width), as the query encoder gives them.
            count: Hits wanted for each.
            encoder_sha256: Of the pair that made the queries.

        Raises:
            DataError: Another pair made this index.
        """
        self.require_encoder_sha256(encoder_sha256)
        with self._reading():
            version, ids, rows = self._passages()
            matrix = self._vectors.rows(int(rows.max()) + 1 if len(rows) else 0)
            found = nearest(np.ascontiguousarray(queries, dtype=np.float32), matrix, rows, count)
            return [
                self._hits(version, zip(ids[places].tolist(), scores.tolist(), strict=True), count, "dense")
                for places, scores in found
            ]

    def lexical(self, question: str, count: int) -> list[Hit]:
        """The passages that fit a question's words best, by BM25."""
        with self._reading():
            version, ids, _ = self._passages()
            if self._document_frequency[0] != version:
                self._document_frequency = (version, {})
            known = self._document_frequency[1]
            found = search_words(self._database, question, count, passages=len(ids), known=known)
            return self._hits(version, found, count, "lexical")

    def search(self, question: str, encoders: EncoderPair | None, *, count: int, mode: Mode = "hybrid") -> list[Hit]:
        """The best passages for a question.

        Args:
            question: Not empty.
            encoders: The index's own; None will do for ``lexical``.
            count: Hits wanted; fewer come back where there are fewer passages.
            mode: By vectors, by words, or both by reciprocal rank fusion.

        Raises:
            DataError: The question is longer than the encoder reads, or the encoders are not the index's own.
        """
        if count < 1:
            return []
        if mode == "lexical":
            return self.lexical(question, count)
        assert encoders is not None, "vectors are made by encoders"
        query = encoders.query.vectors([question], "query")
        depth = count if mode == "dense" else max(count, FUSED_DEPTH)
        with self._reading():  # both searches see one version
            dense = self.dense(query, depth, encoder_sha256=encoders.sha256)[0]
            return dense if mode == "dense" else fuse([dense, self.lexical(question, depth)], count)

    def text(self, document: str, version: int | None = None) -> str:
        """A document's stored text, which citations' offsets count in.

        Args:
            document: Its id.
            version: Of the index; None for the one that is searched.

        Raises:
            DataError: The version, or the document in it, does not exist.
        """
        with self._reading():
            known = {info.number for info in store.versions(self._database)}
            number = store.head(self._database) if version is None else version
            revision = store.documents_at(self._database, number).get(document) if number in known else None
            if revision is None:
                raise DataError(f"{self.folder}: no document {document!r} in version {number}")
            return str(self._database.execute("select text from revision where id=?", (revision,)).fetchone()[0])

    def vectors_of(self, passages: Sequence[Passage]) -> Vectors:
        """The stored vectors of passages, (passages, width)."""
        with self._reading():
            sql = "select vector from passage where id=?"
            rows = [int(self._database.execute(sql, (passage.id,)).fetchone()[0]) for passage in passages]
            return np.array(self._vectors.rows(max(rows, default=-1) + 1)[rows])

    def all_passages(self) -> list[Passage]:
        """Every passage that is searched, in order of document and place."""
        with self._reading():
            version, ids, _ = self._passages()
            found = [store.read_passage(self._database, int(one), version=version) for one in ids]
        return sorted(found, key=lambda passage: (passage.document, passage.start))

    def passages_of(self, document: str) -> list[Passage]:
        """The passages of one document that are searched, in order; none where it is not in the index."""
        with self._reading():
            version = store.head(self._database)
            found = store.passages_of(self._database, document)
            return [store.read_passage(self._database, one, version=version) for one in found]

    def require_sound(self) -> int:
        """Read everything and hold it to what was written; minutes for a million passages.

        Returns:
            Passages that are searched.

        Raises:
            DataError: Something differs; the first faults are named.
        """
        with self._reading():
            found = itertools.islice(faults_of(self._database, self._vectors, words=self.settings.words), MAX_FAULTS)
            if problems := [Problem(where=str(self.folder), what=fault) for fault in found]:
                raise DataError(problems)
            return len(self._passages()[1])

    def require_encoders(self, encoders: EncoderPair) -> None:
        """Refuse encoders that did not make this index: nearness between their vectors means nothing."""
        if encoders.width != self.settings.width:
            raise DataError(
                f"{self.folder}: holds vectors of {self.settings.width} numbers; this encoder gives {encoders.width}",
                fix=f"Use the encoder that it was made with: {self.settings.encoder}.",
            )
        self.require_encoder_sha256(encoders.sha256)

    def require_encoder_sha256(self, sha256: str) -> None:
        """The same by digest alone."""
        if sha256 != self.settings.encoder_sha256:
            raise DataError(
                f"{self.folder}: was made by the encoder {self.settings.encoder} "
                f"({self.settings.encoder_sha256[:12]}…), and this query comes from another ({sha256[:12]}…)",
                fix="Search with the encoder that made it, or build an index with the other one.",
            )

    def _passages(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Version, ids and vector rows of what is searched; read again when a version was made, here or elsewhere."""
        version = store.head(self._database)
        if self._live is None or self._live[0] != version:
            pairs = np.array(list(store.live_passages(self._database)), dtype=np.int64).reshape(-1, 2)
            self._live = (version, pairs[:, 0].copy(), pairs[:, 1].copy())
        return self._live

    def _hits(self, version: int, found: Any, count: int, name: str) -> list[Hit]:
        scored = [(store.read_passage(self._database, passage, version=version), score) for passage, score in found]
        scored.sort(key=lambda pair: (-pair[1], pair[0].document, pair[0].start))
        return [
            Hit(passage=passage, score=score, ranks={name: rank})
            for rank, (passage, score) in enumerate(scored[:count], start=1)
        ]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One state of the index from beginning to end, whoever writes meanwhile."""
        with self._lock, damage_named(self.folder):
            if self._database.in_transaction:  # within a write of this thread
                yield
                return
            self._database.execute("begin")
            try:
                yield
            finally:
                self._database.execute("rollback")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Growth]:
        if self._export is not None:
            raise OutputError(
                f"{self._export}: is an export, which stays as it was verified",
                fix="Change the index that it was exported from, and export again.",
            )
        if self.read_only:
            raise OutputError(f"{self.folder}: cannot be written to", fix="Work on a copy of it.")
        with folder_lock(self.folder), self._lock, damage_named(self.folder):
            yield Growth(self.folder, self._database, self._vectors, self.settings)


def create_index(folder: str | Path, settings: IndexSettings) -> Index:
    """Make an empty index; it appears complete or not at all.

    Raises:
        OutputError: Something stands there.
    """
    path = Path(folder)
    require_empty(path)
    with new_folder(path) as partial:
        create_database(partial / DATABASE, tokenizer=TOKENIZERS[settings.words])
        write_settings(partial, settings)
    return Index(path)
