"""How well a hybrid answers a question set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.hybrid.kinds import HybridSystem
from ftkit.hybrid.mixture import MixtureSystem
from ftkit.hybrid.router import RouterSystem, count_routes
from ftkit.hybrid.weights import WeighedSystem
from ftkit.rag.answering import RagSystem
from ftkit.rag.evaluation import Evaluation, evaluate_rag
from ftkit.rag.measuring import measure
from ftkit.rag.outcomes import Outcome, outcomes_of
from ftkit.rag.questions import AskedQuestion


@dataclass(frozen=True, kw_only=True)
class RoutedEvaluation(Evaluation):
    """An evaluation in which each question was answered by one of several.

    Attributes:
        members: The one that answered each question.
    """

    members: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``; each answer names its member."""
        document = super().to_dict()
        for answer, member in zip(document["answers"], self.members, strict=True):
            answer["member"] = member
        return document


def evaluate_hybrid(
    system: HybridSystem,
    questions: Sequence[AskedQuestion],
    *,
    place: Path,
    cache: Path | None = None,
    confidences: bool = True,
) -> Evaluation:
    """Ask a hybrid every question, each member under its own threshold.

    Args:
        system: Open.
        questions: At least one.
        place: Its folder, for the record.
        cache: See `ftkit.rag.measuring.measure`.
        confidences: See there.
    """
    if not isinstance(system, RouterSystem):
        single = evaluate_rag(system, questions, cache=cache, confidences=confidences)
        return replace(single, settings={**single.settings, **_weights(system, place)})
    routes = system.routes([one.question for one in questions])
    found: list[Outcome | None] = [None] * len(questions)
    for name, member in system.members.items():
        places = [at for at, route in enumerate(routes) if route == name]
        if not places:
            continue
        asked = [questions[at] for at in places]
        measured = measure(member, asked, cache=cache, confidences=confidences)
        outcomes = outcomes_of(list(zip(asked, measured, strict=True)), member.threshold)
        for at, outcome in zip(places, outcomes, strict=True):
            found[at] = outcome
    return RoutedEvaluation(
        outcomes=tuple(one for one in found if one is not None),
        threshold=None,
        settings=_settings(system, place, routes),
        members=tuple(routes),
    )


def _weights(system: RagSystem, place: Path) -> dict[str, Any]:
    if not isinstance(system, WeighedSystem):
        return {}
    kind = "mixture" if isinstance(system, MixtureSystem) else "memory"
    return {"hybrid": str(place), "kind": kind, "weight": system.weight, "temperature": system.temperature}


def _settings(system: RouterSystem, place: Path, routes: Sequence[str]) -> dict[str, Any]:
    return {
        "hybrid": str(place),
        "kind": "router",
        "promoted": system.router.promoted,
        "best_member": system.router.best,
        "encoder_sha256": system.router.encoder_sha256,
        "routes": count_routes(routes, system.router.members),
        "thresholds": {name: one.threshold for name, one in system.members.items()},
    }
