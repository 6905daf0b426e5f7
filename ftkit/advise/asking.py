"""The situation asked for, one question at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from ftkit.recipe.advise import AdviseSpec

# Key, question, and what an answer may be.
QUESTIONS: tuple[tuple[str, str, str], ...] = (
    ("knowledge.stability", "How soon do answers grow old: stable (years), slow (months), fast (weeks)?", "text"),
    ("knowledge.changes_per_month", "How many facts or documents change in a month?", "number"),
    ("knowledge.specialised", "Is it one specialised domain (yes, no)?", "yes"),
    ("verifiability.citations", "Are sources beside the answers required, useful or unneeded?", "text"),
    ("update.deadline_hours", "Within how many hours must a change be in the answers?", "number"),
    ("situation.documents", "How many documents hold the knowledge?", "whole"),
    ("situation.examples", "How many questions with right answers are there to train on?", "whole"),
    ("situation.offline", "Does it answer without internet (yes, no)?", "yes"),
    ("situation.remote_index", "Can the documents only be searched over the network (yes, no)?", "yes"),
    ("situation.requests_per_second", "How many requests a second at the busiest time?", "number"),
    ("resources.memory_gib", "How many GiB of memory has the machine that trains?", "number"),
    ("resources.gpu", "Has it a GPU (yes, no)?", "yes"),
    ("resources.expertise", "How much experience with training is there: low, medium, high?", "text"),
    ("priorities.accuracy", "How much do right answers count, from 0 to 3?", "number"),
    ("priorities.factuality", "How much does it count that nothing is invented, from 0 to 3?", "number"),
    ("priorities.latency", "How much do fast answers count, from 0 to 3?", "number"),
    ("priorities.consistency", "How much does the same form each time count, from 0 to 3?", "number"),
    ("priorities.style", "How much does a tone of its own count, from 0 to 3?", "number"),
    ("priorities.cost", "How much does low cost count, from 0 to 3?", "number"),
    ("evidence", "Is there a comparison.json of ftkit compare (its path)?", "text"),
)
TRUE, FALSE = ("yes", "y", "true"), ("no", "n", "false")


def ask_situation(ask: Callable[[str], str], say: Callable[[str], Any]) -> AdviseSpec:
    """Ask for everything; an empty answer leaves a thing unknown, a wrong one is asked again.

    Args:
        ask: Shows a question and gives the answer.
        say: Shows a line.
    """
    say("Empty answers are fine: what is not known is not assumed.")
    values: dict[str, Any] = {}
    for key, question, kind in QUESTIONS:
        while True:
            answer = ask(question).strip()
            if not answer:
                break
            try:
                trial = _with(values, key, _read(answer, kind))
                AdviseSpec.model_validate(trial)
            except (ValueError, ValidationError):
                say(f"  {answer!r} is no answer to that.")
                continue
            values = trial
            break
    return AdviseSpec.model_validate(values)


def _read(answer: str, kind: str) -> Any:
    if kind == "yes":
        if answer.casefold() not in TRUE + FALSE:
            raise ValueError(answer)
        return answer.casefold() in TRUE
    if kind == "whole":
        return int(answer)
    return float(answer) if kind == "number" else answer


def _with(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.partition(".")
    return {**values, section: {**values.get(section, {}), name: value} if name else value}
