"""Open systems as one whose weight is still to be chosen, and what is tried to choose it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from ftkit.hybrid.datastore import Datastore
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.remembered import Pair
from ftkit.hybrid.weights import WeighedSystem
from ftkit.pipeline.target import Target
from ftkit.rag.answering import RagSystem
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion

# Search scores differ in scale: fused ranks lie within 0.04, cosines within 1, BM25 goes beyond 10.
TEMPERATURES = (0.01, 0.05, 0.2, 1.0)
DISTANCES = (1.0, 10.0, 100.0, 1000.0)  # temperatures of squared distances between states
UNDECIDED = 0.5


def mixture_of(tuned: Target, reader: RagSystem) -> MixtureSystem:
    """A tuned model, without passages, and a reader of them, a passage at a time."""
    return MixtureSystem(**_fields(reader), weight=UNDECIDED, tuned=tuned)


def memory_of(system: RagSystem, store: Datastore, neighbours: int, *, follows: bool) -> NearestSystem:
    """A system with a memory that its generator made; whether it follows, see `NearestSystem`."""
    counting = min(neighbours, store.entries)
    return NearestSystem(**_fields(system), weight=UNDECIDED, datastore=store, neighbours=counting, follows=follows)


def temperatures_for(system: WeighedSystem) -> tuple[float, ...]:
    """Those worth trying."""
    if isinstance(system, NearestSystem):
        return DISTANCES
    return TEMPERATURES if system.passages > 1 else TEMPERATURES[-1:]  # one passage has all the weight


def pairs_of(questions: Iterable[AskedQuestion], hits: Callable[[AskedQuestion], Sequence[Hit]] | None) -> list[Pair]:
    """Questions with their first answers as a memory keeps them; those without an answer are left out.

    Args:
        questions: Any.
        hits: Gives the passages that the model is shown with a question; None where it is shown none.
    """
    return [
        Pair(
            question=one.question,
            answer=one.answers[0],
            passages=() if hits is None else tuple(hit.passage.content for hit in hits(one)),
        )
        for one in questions
        if one.answers
    ]


def _fields(system: RagSystem) -> dict[str, Any]:
    """A threshold is left behind: it was chosen for the confidences of the system alone."""
    return {one.name: getattr(system, one.name) for one in fields(RagSystem) if one.init} | {"threshold": None}
