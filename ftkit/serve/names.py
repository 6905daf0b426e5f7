"""What is served, under which name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftkit.errors import UsageError
from ftkit.improve.promotion import served_place


def served_names(words: Sequence[str]) -> dict[str, str]:
    """Read ``DIR`` and ``NAME=DIR`` words.

    Args:
        words: As on the command line.

    Returns:
        The place of each name; the place as it was written is its name where it was given none. An output of
        `ftkit improve` stands for what it has in service.

    Raises:
        UsageError: A name stands for two places, or is empty.
        OutputError: What an output has in service is gone, or another than the one that was promoted.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or Path(word).exists():
            name, place = word.rstrip("/") or word, word
        if not name.strip() or not place:
            raise UsageError(f"{word!r}: names nothing", fix="Write DIR, or NAME=DIR to give it a name for clients.")
        if name in found:
            raise UsageError(f"{name!r} stands for two models", fix="Give each a name of its own: NAME=DIR.")
        found[name] = served_place(place)
    return found
