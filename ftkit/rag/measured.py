"""What a system did with a question, and how it is kept on the disk, a line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.notices import log
from ftkit.rag.blame import Evidence


@dataclass(frozen=True, kw_only=True)
class Cited:
    """A passage that the reader was given, by place and digest; its text stands in the index."""

    document: str
    version: int
    start: int
    end: int
    text_sha256: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a system did with one question.

    Attributes:
        said: The generator's answer, before any threshold; None where it said that it does not know.
        confidence: In that answer; None without one, or where the generator gives no likelihoods.
        citations: What the reader was given, best first.
        ranks: Of each document that the answer needs, the rank of its best passage, from 1; None where none was
            found.
        evidence: Of the steps before the reader.
        nll: Nats of the first right answer and its stop token after the reader's prompt; None without one.
        nll_tokens: How many tokens that is; 0 without one.
        retrieve_s: Seconds.
        generate_s: Seconds; None where the answer was one of a batch.
        answer_rank: Of the first hit that states the answer and is of a document that the answer needs, from 1; 0
            where none does, -1 where there is no answer, or where an earlier version did not look.
        prompt_tokens: What the generator was given, in its tokens; 0 where an earlier version did not count.
    """

    said: str | None
    confidence: float | None
    citations: tuple[Cited, ...]
    ranks: tuple[int | None, ...]
    evidence: Evidence
    nll: float | None
    nll_tokens: int
    retrieve_s: float
    generate_s: float | None
    answer_rank: int = -1
    prompt_tokens: int = 0


def append_measured(cache: Path, measured: Mapping[str, Measured]) -> None:
    """Add answers, a line each, in one write."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"key": key, "measured": asdict(one)}) + "\n" for key, one in measured.items()]
    with cache.open("a", encoding="utf-8") as stream:
        stream.write("".join(lines))


def read_measured(cache: Path) -> dict[str, Measured]:
    """The answers of a cache; a line that was cut off when its process died is none."""
    found = {}
    lines = cache.read_text(encoding="utf-8", errors="replace").splitlines() if cache.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
            found[str(row["key"])] = measured_from(row["measured"])
        except (ValueError, KeyError, TypeError):
            log.info("%s: a line that cannot be read is left out", cache)
    if lines and not cache.read_bytes().endswith(b"\n"):
        with cache.open("a", encoding="utf-8") as stream:
            stream.write("\n")  # what is written next must not join the line that was cut off
    return found


def measured_from(values: dict[str, Any]) -> Measured:
    """The same from `asdict` of it, as JSON gives it back."""
    built = {
        "citations": tuple(Cited(**one) for one in values["citations"]),
        "ranks": tuple(values["ranks"]),
        "evidence": Evidence(**values["evidence"]),
    }
    return Measured(**(values | built))
