"""The nearest known word to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was most likely meant to be, or None if none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, what: str = "Known") -> str:
    """A fix line: the nearest known word, else all of them."""
    names = list(known)
    match = nearest(word, names)
    return f"Did you mean {match!r}?" if match else f"{what}: {', '.join(names)}."
