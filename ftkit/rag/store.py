"""Documents, passages and versions in an index's database.

A version is the map from document to revision. It is kept as its parent and what changed, so that any former one can
be put back; what the newest holds also stands in ``live``, and only that is searched.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ftkit.rag.document import Chunk, Document
from ftkit.rag.passage import Passage, content_of

MOST_BY_NAME = 1000  # more are found faster by reading all: an edit of a million documents should not do that


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """Attributes: number, parent (None for the empty one), made: UTC. note: what was done. changed: documents."""

    number: int
    parent: int | None
    made: str
    note: str
    changed: int


@dataclass(frozen=True, kw_only=True)
class NewRevision:
    """A document's new text, cut and with the row of each passage's vector."""

    document: Document
    chunks: Sequence[Chunk]
    rows: Sequence[int]


def head(database: sqlite3.Connection) -> int:
    """The version that is searched."""
    return int(database.execute("select value from meta where key='head'").fetchone()[0])


def versions(database: sqlite3.Connection) -> list[VersionInfo]:
    """All that were ever made, oldest first."""
    sql = """select number, parent, made, note, (select count(*) from change where version = number)
             from version order by number"""
    return [
        VersionInfo(number=number, parent=parent, made=made, note=note, changed=changed)
        for number, parent, made, note, changed in database.execute(sql)
    ]


def live_documents(database: sqlite3.Connection, names: Collection[str] | None = None) -> dict[str, int]:
    """The searched version's documents and their revisions.

    Args:
        database: Of the index.
        names: Those that are asked for, if they are in it; None for all.
    """
    if names is None or len(names) > MOST_BY_NAME:
        found = {name: int(revision) for name, revision in database.execute("select document, revision from live")}
        return found if names is None else {name: found[name] for name in names if name in found}
    sql = "select revision from live where document=?"
    rows = {name: database.execute(sql, (name,)).fetchone() for name in names}
    return {name: int(row[0]) for name, row in rows.items() if row is not None}


def documents_at(database: sqlite3.Connection, version: int) -> dict[str, int]:
    """The documents of any version and their revisions."""
    line: list[int] = []
    step: int | None = version
    while step is not None:
        line.append(step)
        step = database.execute("select parent from version where number=?", (step,)).fetchone()[0]
    found: dict[str, int] = {}
    for number in reversed(line):
        for name, revision in database.execute("select document, revision from change where version=?", (number,)):
            if revision is None:
                found.pop(name, None)
            else:
                found[name] = int(revision)
    return found


def revision_of(database: sqlite3.Connection, document: Document) -> int | None:
    """The stored revision with exactly this content, of this or of any former version."""
    sql = "select id from revision where document=? and sha256=?"
    row = database.execute(sql, (document.id, document.sha256)).fetchone()
    return None if row is None else int(row[0])


def known_rows(database: sqlite3.Connection, contents: Iterable[bytes]) -> dict[bytes, int]:
    """The vector rows of those contents that were embedded before."""
    sql = "select row from vector where sha256=?"
    found = {content: database.execute(sql, (content,)).fetchone() for content in contents}
    return {content: int(row[0]) for content, row in found.items() if row is not None}


def vector_rows(database: sqlite3.Connection) -> int:
    """How many rows of the vector file count."""
    return int(database.execute("select coalesce(max(row) + 1, 0) from vector").fetchone()[0])


def put_revision(database: sqlite3.Connection, new: NewRevision) -> int:
    """Store a document's text and passages; it is not searched yet."""
    document = new.document
    metadata = json.dumps(document.metadata, ensure_ascii=False)
    cursor = database.execute(
        "insert into revision(document, sha256, text, metadata) values (?,?,?,?)",
        (document.id, document.sha256, document.text, metadata),
    )
    assert cursor.lastrowid is not None
    revision = cursor.lastrowid
    database.executemany(
        'insert into passage(revision, start, "end", context, vector) values (?,?,?,?,?)',
        [
            (revision, chunk.start, chunk.end, chunk.context, row)
            for chunk, row in zip(new.chunks, new.rows, strict=True)
        ],
    )
    return revision


def change_live(
    database: sqlite3.Connection, changes: Mapping[str, int | None], *, number: int | None, note: str
) -> int:
    """Make the searched version another one; call it inside a transaction.

    Args:
        database: Of the index.
        changes: Document and its new revision; None removes it.
        number: The version that this leads back to; None for a new one.
        note: What is done.

    Returns:
        The version that is searched now.
    """
    before = live_documents(database, changes)
    for name, revision in changes.items():
        if name in before:
            _unlist(database, before[name])
            database.execute("delete from live where document=?", (name,))
        if revision is not None:
            _list(database, revision)
            database.execute("insert into live values (?,?)", (name, revision))
    if number is None:
        parent = head(database)
        number = int(database.execute("select max(number) + 1 from version").fetchone()[0])
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        database.execute("insert into version values (?,?,?,?)", (number, parent, made, note))
        database.executemany(
            "insert into change values (?,?,?)", [(number, name, revision) for name, revision in changes.items()]
        )
    database.execute("update meta set value=? where key='head'", (number,))
    return number


def _contents(database: sqlite3.Connection, revision: int) -> list[tuple[int, str]]:
    (text,) = database.execute("select text from revision where id=?", (revision,)).fetchone()
    rows = database.execute('select id, start, "end", context from passage where revision=?', (revision,))
    return [(row, content_of(context, text[start:end])) for row, start, end, context in rows]


def _list(database: sqlite3.Connection, revision: int) -> None:
    database.executemany("insert into lexical(rowid, text) values (?,?)", _contents(database, revision))


def _unlist(database: sqlite3.Connection, revision: int) -> None:
    # A contentless table has to be told what it forgets; told anything else, its counts would go wrong.
    database.executemany(
        "insert into lexical(lexical, rowid, text) values ('delete',?,?)", _contents(database, revision)
    )


def live_passages(database: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Id and vector row of every passage that is searched."""
    yield from database.execute(
        "select passage.id, vector from live join passage using (revision) order by passage.id"
    )


def passages_of(database: sqlite3.Connection, document: str) -> list[int]:
    """Ids of the passages of one document that are searched, in order; none where it is not in the index."""
    sql = "select passage.id from live join passage using (revision) where live.document=? order by start"
    return [int(row[0]) for row in database.execute(sql, (document,))]


def read_passage(database: sqlite3.Connection, passage: int, *, version: int) -> Passage:
    """One passage with its text."""
    sql = """select document, start, "end", context, text, metadata
             from passage join revision on revision.id = passage.revision where passage.id=?"""
    document, start, end, context, text, metadata = database.execute(sql, (passage,)).fetchone()
    return Passage(
        id=passage,
        document=document,
        version=version,
        start=start,
        end=end,
        text=text[start:end],
        context=context,
        metadata=json.loads(metadata),
    )
