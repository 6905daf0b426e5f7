"""Which member won each question, and whether choosing by a router beats the best single member."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ftkit.hybrid.logistic import fit_logistic
from ftkit.rag.intervals import Difference, Floats, Interval, Ratio, intervals_of
from ftkit.rag.outcomes import Outcome

Outcomes = Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a way of choosing does on some questions, beside the others.

    Attributes:
        accuracy: Share of the questions that are sent to the member that won them.
        majority: That share if all were sent to the member that won most.
        routed: Mean token F1 of the answers of the members that were chosen.
        best: Of the best single member's.
        oracle: Of each question's best member's: no choice does better.
        difference: ``routed`` less ``best``.
        interval: 95 %, by resampling groups of documents; None where there is one group alone.
        routes: Questions of each member.
    """

    accuracy: float
    majority: float
    routed: float
    best: float
    oracle: float
    difference: float
    interval: Interval | None
    routes: dict[str, int]

    @property
    def beats_best(self) -> bool:
        """Whether the gain is more than chance: the whole interval is above 0."""
        return self.interval is not None and self.interval[0] > 0


def winners(outcomes: Outcomes) -> list[int]:
    """The member that won each question, by its number.

    The best token F1 wins; among equals who is right, then whose generator found the right answer likelier (in nats
    of the whole answer, as tokenizers differ), then who was given the fewest prompt tokens, then who is named first.
    """
    every = list(outcomes.values())
    return [
        min(range(len(every)), key=lambda number, at=at: _rank(every[number][at]))  # type: ignore[misc]
        for at in range(len(every[0]))
    ]


def _rank(outcome: Outcome) -> tuple[float, bool, float, int]:
    nll = outcome.measured.nll
    return -outcome.f1, not outcome.right, float("inf") if nll is None else nll, outcome.measured.prompt_tokens


def best_member(outcomes: Outcomes) -> str:
    """The single member with the best mean token F1; among equals whose right answers are likelier."""

    def rank(name: str) -> tuple[float, float, float]:
        ranks = [_rank(one) for one in outcomes[name]]
        known = [nll for _, _, nll, _ in ranks if nll != float("inf")]
        return (
            -float(scores_of(outcomes[name]).mean()),
            sum(known) if known else float("inf"),
            sum(r[3] for r in ranks),
        )

    return min(outcomes, key=rank)


def scores_of(outcomes: Sequence[Outcome]) -> Floats:
    """Token F1 of each question."""
    return np.array([one.f1 for one in outcomes], dtype=np.float64)


def folds_of(groups: Sequence[str], folds: int) -> list[int]:
    """The fold of each question: whole groups, the largest first, each to the fold with the fewest questions.

    Args:
        groups: Of each question; see `ftkit.rag.questions.question_groups`.
        folds: How many; no more than there are groups.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda name: (-sizes[name], hashlib.sha256(name.encode()).hexdigest()))
    filled = [0] * min(folds, len(order))
    chosen = {}
    for name in order:
        chosen[name] = filled.index(min(filled))
        filled[chosen[name]] += sizes[name]
    return [chosen[name] for name in groups]


def cross_validated(
    features: Tensor, labels: Sequence[int], groups: Sequence[str], *, classes: int, folds: int, l2: float
) -> list[int]:
    """The class of each question by a router that saw none of its group.

    Args:
        features: (questions, features).
        labels: Who won.
        groups: Of each question, two at least.
        classes: Members.
        folds: See `folds_of`.
        l2: See `ftkit.hybrid.logistic.fit_logistic`.
    """
    fold = folds_of(groups, folds)
    found = [0] * len(labels)
    for number in sorted(set(fold)):
        kept = [at for at, one in enumerate(fold) if one != number]
        left = [at for at, one in enumerate(fold) if one == number]
        model = fit_logistic(features[kept], [labels[at] for at in kept], classes=classes, l2=l2)
        for at, chosen in zip(left, model.classes(features[left]), strict=True):
            found[at] = chosen
    return found


def standing_of(outcomes: Outcomes, chosen: Sequence[str], best: str, groups: Sequence[str]) -> Standing:
    """How a choice does.

    Args:
        outcomes: Of each member, in the order of the questions.
        chosen: The member of each question.
        best: The single member that it is held against.
        groups: Of each question.
    """
    names = list(outcomes)
    won = [names[number] for number in winners(outcomes)]
    scores = {name: scores_of(outcomes[name]) for name in names}
    routed = np.array([scores[name][at] for at, name in enumerate(chosen)])
    every = np.ones(len(chosen))
    gain = Difference(
        first=Ratio(numerators=routed, denominators=every), second=Ratio(numerators=scores[best], denominators=every)
    )
    counted, routes = Counter(won), Counter(chosen)
    return Standing(
        accuracy=sum(one == two for one, two in zip(won, chosen, strict=True)) / len(won),
        majority=max(counted.values()) / len(won),
        routed=float(routed.mean()),
        best=float(scores[best].mean()),
        oracle=float(np.max(np.stack(list(scores.values())), axis=0).mean()),
        difference=float(routed.mean() - scores[best].mean()),
        interval=intervals_of({"gain": gain}, groups)["gain"] if len(set(groups)) > 1 else None,
        routes={name: routes[name] for name in names},
    )


def member_figures(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """Of each member: mean token F1, share right, nats of the right answers a token, questions won."""
    names = list(outcomes)
    won = Counter(names[number] for number in winners(outcomes))
    figures = {}
    for name, found in outcomes.items():
        tokens = sum(one.measured.nll_tokens for one in found)
        figures[name] = {
            "f1": float(scores_of(found).mean()),
            "right": sum(one.right for one in found) / len(found),
            "nll": sum(one.measured.nll or 0.0 for one in found) / tokens if tokens else None,
            "won": won[name],
            "prompt_tokens": sum(one.measured.prompt_tokens for one in found) / len(found),
        }
    return figures
