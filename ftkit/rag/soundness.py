"""A thorough look at an index: whether every byte that decides what is found is the one that was written."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator

from ftkit.rag import store
from ftkit.rag.document import Document
from ftkit.rag.lexical import TOKENIZERS, Words
from ftkit.rag.passage import content_of, content_sha256
from ftkit.rag.vectors import VectorFile


def faults_of(database: sqlite3.Connection, vectors: VectorFile, *, words: Words) -> Iterator[str]:
    """Say what differs from what it should be; reads everything.

    Args:
        database: Of the index, in a transaction.
        vectors: Its vector file.
        words: How its lexical index cuts text.
    """
    for (line,) in database.execute("pragma quick_check(5)"):
        if line != "ok":
            yield f"the database is damaged: {line}"
    yield from _vector_faults(database, vectors)
    yield from _revision_faults(database)
    yield from _passage_faults(database)
    if store.documents_at(database, store.head(database)) != store.live_documents(database):
        yield "the documents that are searched differ from those of the version"
    yield from _lexical_faults(database, words)


def _vector_faults(database: sqlite3.Connection, vectors: VectorFile) -> Iterator[str]:
    matrix = vectors.rows(store.vector_rows(database))
    for row, crc32 in database.execute("select row, crc32 from vector"):
        if zlib.crc32(matrix[row].tobytes()) != crc32:
            yield f"vector {row} differs from the one that was written"


def _revision_faults(database: sqlite3.Connection) -> Iterator[str]:
    for name, sha256, text, metadata in database.execute("select document, sha256, text, metadata from revision"):
        if Document(id=name, text=text, metadata=json.loads(metadata)).sha256 != sha256:
            yield f"the text of {name} differs from the one that was written"


def _passage_faults(database: sqlite3.Connection) -> Iterator[str]:
    sql = """select passage.id, document, text, start, "end", context, vector.sha256
             from passage join revision on revision.id = passage.revision
             left join vector on vector.row = passage.vector"""
    for number, name, text, start, end, context, sha256 in database.execute(sql):
        if content_sha256(content_of(context, text[start:end])) != sha256:
            yield f"passage {number} of {name} differs from the one that was embedded"


def _lexical_faults(database: sqlite3.Connection, words: Words) -> Iterator[str]:
    """Compare how often each word stands in how many passages with an index made of the passages now."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        fresh.execute(f"create virtual table lexical using fts5(text, content='', tokenize='{TOKENIZERS[words]}')")
        sql = """select passage.id, text, start, "end", context from live
                 join revision on revision.id = live.revision join passage on passage.revision = live.revision"""
        fresh.executemany(
            "insert into lexical(rowid, text) values (?,?)",
            (
                (number, content_of(context, text[start:end]))
                for number, text, start, end, context in database.execute(sql)
            ),
        )
        if _vocabulary(fresh) != _vocabulary(database):
            yield "the words that are searched differ from those of the passages"


def _vocabulary(database: sqlite3.Connection) -> set[tuple[str, int, int]]:
    database.execute("create virtual table if not exists temp.words using fts5vocab('main', 'lexical', 'row')")
    return set(database.execute("select term, doc, cnt from temp.words"))
