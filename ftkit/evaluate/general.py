"""General text and probes: what a model knew before it was tuned, to see what of it is left.

A file is plain text (.txt, .md), or JSON lines of which each is one of

    {"text": "..."}                                    general text
    {"query": "...", "choices": ["...", ...], "gold": 0}    a question with answers to choose from
    {"context": "...", "continuation": "..."}          a text with its only right end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.data.sources import parse_line, place
from ftkit.errors import DataError, Problem
from ftkit.files import sha256_json

KINDS = 'Write {"text": ...}, {"query": ..., "choices": [...], "gold": 0}, or {"context": ..., "continuation": ...}.'


@dataclass(frozen=True, kw_only=True)
class ChoiceProbe:
    """Attributes: query: the question. choices: at least two answers. gold: which of them is right, from 0."""

    query: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True, kw_only=True)
class General:
    """What is measured.

    Attributes:
        texts: Each at least one character.
        choices: Questions with answers to choose from.
        ends: (context, continuation) each.
    """

    texts: tuple[str, ...] = ()
    choices: tuple[ChoiceProbe, ...] = ()
    ends: tuple[tuple[str, str], ...] = field(default=())

    @property
    def sha256(self) -> str:
        """Of all of it, in order."""
        probes = [[one.query, one.choices, one.gold] for one in self.choices]
        return sha256_json([self.texts, probes, self.ends])


def read_general(paths: Sequence[str | Path], *, most: int) -> General:
    """Read files of general text and probes.

    Args:
        paths: At least one.
        most: Rows of each kind that are used, spread evenly over all that there are.

    Raises:
        DataError: Naming every fault.
    """
    texts: list[str] = []
    choices: list[ChoiceProbe] = []
    ends: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for path in map(Path, paths):
        try:
            raw = path.read_bytes()
        except OSError as error:
            problems.append(Problem(where=str(path), what=f"cannot be read: {error.strerror}", fix="Name a file."))
            continue
        if path.suffix.lower() in (".txt", ".md"):
            text = raw.decode("utf-8", errors="replace").strip()
            if text:
                texts.append(text)
            else:
                problems.append(Problem(where=str(path), what="is empty", fix="Name a file with text."))
            continue
        for number, line in enumerate(raw.splitlines(), start=1):
            if not line.strip():
                continue
            where = place(str(path), "line", number)
            row = parse_line(line, where)
            fault = row if isinstance(row, Problem) else _take(row, where, texts, choices, ends)
            if fault is not None:
                problems.append(fault)
    if problems:
        raise DataError(problems)
    if not texts and not choices and not ends:
        raise DataError(f"{', '.join(map(str, paths))}: holds nothing to measure on", fix=KINDS)
    return General(
        texts=tuple(_spread(texts, most)), choices=tuple(_spread(choices, most)), ends=tuple(_spread(ends, most))
    )


def _take(
    row: dict[str, Any],
    where: str,
    texts: list[str],
    choices: list[ChoiceProbe],
    ends: list[tuple[str, str]],
) -> Problem | None:
    """Put a row where it belongs; gives what is wrong with it."""
    text, query, context = row.get("text"), row.get("query"), row.get("context")
    if isinstance(text, str) and text.strip():
        texts.append(text)
    elif isinstance(query, str) and query.strip():
        given, gold = row.get("choices"), row.get("gold")
        if not isinstance(given, list) or len(given) < 2 or not all(isinstance(one, str) and one for one in given):
            return Problem(where=where, what="choices: is no list of at least two texts", fix=KINDS)
        if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(given):
            return Problem(where=where, what=f"gold: {gold!r} is none of 0 to {len(given) - 1}", fix=KINDS)
        choices.append(ChoiceProbe(query=query.strip(), choices=tuple(given), gold=gold))
    elif isinstance(context, str) and context.strip():
        end = row.get("continuation")
        if not isinstance(end, str) or not end.strip():
            return Problem(where=where, what="continuation: is no text", fix=KINDS)
        ends.append((context.rstrip(), end.strip()))
    else:
        return Problem(where=where, what="holds no text, query or context", fix=KINDS)
    return None


def _spread(rows: Sequence[Any], most: int) -> list[Any]:
    count = min(most, len(rows))
    return [rows[number * len(rows) // count] for number in range(count)]
