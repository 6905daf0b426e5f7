"""BM25 (Robertson et al. 1995; k1 1.2, b 0.75) by SQLite's FTS5."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Literal

Words = Literal["stems", "words", "trigrams"]
TOKENIZERS: dict[Words, str] = {
    "stems": "porter unicode61 remove_diacritics 2",
    "words": "unicode61 remove_diacritics 2",
    "trigrams": "trigram",
}
# Passages that one query may make SQLite score. Words that are in more of them than that are the least telling ones;
# at a million passages each would cost a second.
SCORED_AT_MOST = 50_000
# Beyond what is asked for, because equally good passages are put in order by name.
SPARE = 50
_WORD = re.compile(r"\w+")


def search_words(
    database: sqlite3.Connection, question: str, count: int, *, passages: int, known: dict[str, int]
) -> list[tuple[int, float]]:
    """The passages that fit a question's words best.

    Args:
        database: Of the index.
        question: Any text; none of its characters is read as query language.
        count: Passages wanted.
        passages: How many there are.
        known: In how many passages a word is; filled in here, of use while the index stays as it is.

    Returns:
        (passage, score) with the best first; there may be more than ``count``: all that are as good as the last.
    """
    words = _telling(database, dict.fromkeys(_WORD.findall(question.lower())), passages, known)
    if not words or not count:
        return []
    limit = count + SPARE
    while True:
        found = [(int(row), -float(score)) for row, score in _matches(database, words, limit)]
        if len(found) < limit or found[-1][1] < found[count - 1][1]:
            return found
        limit *= 4  # so many are equally good that the ones left out might belong here


def _matches(database: sqlite3.Connection, words: Sequence[str], limit: int) -> list[tuple[int, float]]:
    sql = "select rowid, rank from lexical where lexical match ? order by rank limit ?"
    return database.execute(sql, (" OR ".join(map(_quoted, words)), limit)).fetchall()


def _telling(database: sqlite3.Connection, words: dict[str, None], passages: int, known: dict[str, int]) -> list[str]:
    """The words to search for: all, or where that costs too much the rarest ones."""
    if passages * len(words) <= SCORED_AT_MOST:
        return list(words)
    for word in words:
        if word not in known:
            count = database.execute("select count(*) from lexical where lexical match ?", (_quoted(word),))
            known[word] = int(count.fetchone()[0])
    chosen: list[str] = []
    scored = 0
    for word in sorted((word for word in words if known[word]), key=lambda word: (known[word], word)):
        if chosen and scored + known[word] > SCORED_AT_MOST:
            break
        chosen.append(word)
        scored += known[word]
    return chosen


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'
