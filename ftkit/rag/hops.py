"""Questions that need two documents: retrieve, read what the first passage brings, retrieve again.

"Where does the company that makes the Visgudi toaster have its head office?" finds the toaster's page, which names
the company; the company's page has no word of the question in it but "head office". The second search therefore asks
for what the first passage left open of the question, about the names that it brought. Multi-hop dense retrieval
(Xiong et al. 2021, arXiv:2009.12756) asks with question and passage together and trains an encoder for that; without
such training the passage drowns the question, and this form finds more (tests/benchmarks/RESULTS.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ftkit.rag.passage import Hit

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
MOST_NEW = 24  # words; a passage of names alone would leave no room for the question


def next_question(question: str, passage: str) -> str | None:
    """What is still open after a passage was read.

    Args:
        question: As asked.
        passage: That was found for it.

    Returns:
        The question's words that the passage does not have, then what the passage brings: its names (words with a
        capital or a digit that the question lacks), or where it has none, its other words. None where it brings
        nothing.
    """
    asked = {word.casefold() for word in _WORD.findall(question)}
    written = _WORD.findall(passage)
    known = {word.casefold() for word in written}
    new = list(dict.fromkeys(word for word in written if word.casefold() not in asked))
    names = [word for word in new if any(letter.isupper() or letter.isdigit() for letter in word)]
    brought = (names or new)[:MOST_NEW]
    if not brought:
        return None
    still_open = [word for word in _WORD.findall(question) if word.casefold() not in known]
    return " ".join([*still_open, *brought])


def two_hops(first: Sequence[Hit], again: Callable[[str], Sequence[Hit]], question: str, count: int) -> list[Hit]:
    """The best passage, then what a second search finds from there, then the rest of the first search.

    Args:
        first: What the question found.
        again: Searches for a text.
        question: As asked.
        count: Hits wanted.
    """
    if not first:
        return []
    further = next_question(question, first[0].passage.content)
    found = [] if further is None else again(further)
    chosen: dict[int, Hit] = {}
    for hit in (first[0], *found, *first[1:]):
        chosen.setdefault(hit.passage.id, hit)
    return list(chosen.values())[:count]
