"""The tables of an index, and how its SQLite file is opened.

One file for documents, passages, versions and the lexical index, because one transaction then changes all of them or
none: a process killed at any moment leaves the version before. SQLite's own FTS5 ranks by BM25 with exact counts
after every removal (Lucene's children count removed passages until segments are merged), so an index that grew by
edits ranks as one built anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ftkit.errors import DataError, MissingPartError

FORMAT_VERSION = 1
DATABASE = "index.sqlite"
# Waits for another process's commit; a writer holds the folder's lock, so only readers ever wait.
BUSY_S = 60.0

TABLES = """
create table meta(key text primary key, value) without rowid;
create table revision(
    id integer primary key, document text not null, sha256 text not null, text text not null, metadata text not null,
    unique(document, sha256));
create table vector(row integer primary key, sha256 blob not null unique, crc32 integer not null);
create table passage(
    id integer primary key, revision integer not null references revision(id), start integer not null,
    "end" integer not null, context text not null, vector integer not null);
create index passage_of_revision on passage(revision);
create table version(number integer primary key, parent integer, made text not null, note text not null);
create table change(version integer not null, document text not null, revision integer,
    primary key(version, document)) without rowid;
create table live(document text primary key, revision integer not null) without rowid;
"""


def create_database(path: Path, *, tokenizer: str) -> None:
    """Write an empty index's database.

    Args:
        path: Nothing stands there.
        tokenizer: Of FTS5, in its own words.

    Raises:
        MissingPartError: This Python's SQLite has no FTS5.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("begin")
        for statement in TABLES.split(";"):
            database.execute(statement)
        try:
            # Contentless: the passages' text stands in their documents already.
            database.execute(f"create virtual table lexical using fts5(text, content='', tokenize='{tokenizer}')")
        except sqlite3.OperationalError as error:
            raise MissingPartError(
                f"this Python's SQLite cannot build a lexical index: {error}",
                fix="Use a Python whose sqlite3 has FTS5, as those of python.org, Debian and conda have.",
            ) from None
        values = {"format_version": FORMAT_VERSION, "head": 0}
        database.executemany("insert into meta values (?, ?)", list(values.items()))
        database.execute("insert into version values (0, null, '', 'empty')")
        database.execute("commit")


def open_database(folder: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open an index's database.

    Args:
        folder: Of the index.
        read_only: Nothing is written, not even beside it; for exports and for folders without the right to write.

    Raises:
        DataError: It is not there, damaged, or of another format.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise DataError(f"{folder}: is no index", fix=f"Make one with: ftkit rag index SOURCE -o {folder}")
    with damage_named(folder):
        place = path.resolve().as_uri() + ("?mode=ro&immutable=1" if read_only else "?mode=rw")
        database = sqlite3.connect(place, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        database.execute("pragma trusted_schema=off")  # a stranger's file may hold views and triggers
        database.execute("pragma cell_size_check=on")
        if not read_only:
            database.execute("pragma synchronous=full")
        found = database.execute("select value from meta where key='format_version'").fetchone()
        if found is None or found[0] != FORMAT_VERSION:
            database.close()
            raise DataError(
                f"{folder}: was made in format {found[0] if found else 'unknown'}; this ftkit reads {FORMAT_VERSION}",
                fix="Build it again from its sources, or use the ftkit that made it.",
            )
    return database


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn what SQLite says of a damaged file into a clear error."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise DataError(
                f"{folder}: another process is writing: {error}", fix="Wait for it and try again."
            ) from None
        raise DataError(f"{folder}: its database cannot be read: {error}", fix=_MEND) from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{folder}: its database is damaged: {error}", fix=_MEND) from None


_MEND = "Build it again from its sources, or put back a copy of the folder."


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, and on the disk when the block is left."""
    database.execute("begin immediate")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
