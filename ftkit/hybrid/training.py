"""A router from what the members answered to dev questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ftkit.hybrid.course import Course
from ftkit.hybrid.judging import (
    Outcomes,
    Standing,
    best_member,
    cross_validated,
    member_figures,
    standing_of,
    winners,
)
from ftkit.hybrid.logistic import fit_logistic
from ftkit.hybrid.router import Router, question_features, save_router
from ftkit.notices import log
from ftkit.rag.encoder import Encoder
from ftkit.rag.questions import AskedQuestion, question_groups
from ftkit.recipe.hybrid import RouterSection


def train_router(course: Course) -> dict[str, Any]:
    """Ask the members, learn who wins, judge it by cross-validation, and write the router.

    Returns:
        What stands in result.json.
    """
    encoder = course.encoder
    assert encoder is not None, "a router has one"
    outcomes = course.outcomes(course.train)
    held = course.outcomes(course.held) if course.held else None
    router, facts = learn_router(outcomes, course.train, encoder, course.recipe.router)
    save_router(router, course.folder)
    facts["validation"] = None
    if held is not None:
        routes = router.routes(question_features(encoder, _texts(course.held)))
        standing = standing_of(held, routes, router.best, question_groups(course.held))
        facts["validation"] = {**standing_facts(standing), "members": member_figures(held)}
    log.info("%s", facts["because"])
    return facts


def learn_router(
    outcomes: Outcomes, asked: Sequence[AskedQuestion], encoder: Encoder, settings: RouterSection
) -> tuple[Router, dict[str, Any]]:
    """Fit the classifier on all dev questions, and say by others than it learnt from what it is worth.

    Args:
        outcomes: Of each member.
        asked: The dev questions, of two groups at least; see `ftkit.rag.questions.question_groups`.
        encoder: Whose vectors the router reads.
        settings: Of the classifier.
    """
    names, groups = list(outcomes), question_groups(asked)
    features, labels = question_features(encoder, _texts(asked)), winners(outcomes)
    chosen = cross_validated(features, labels, groups, classes=len(names), folds=settings.folds, l2=settings.l2)
    best = best_member(outcomes)
    standing = standing_of(outcomes, [names[number] for number in chosen], best, groups)
    router = Router(
        members=tuple(names),
        model=fit_logistic(features, labels, classes=len(names), l2=settings.l2),
        promoted=standing.beats_best,
        best=best,
        encoder_sha256=encoder.found.sha256,
    )
    facts = {
        "promoted": router.promoted,
        "because": verdict(standing, best),
        "best_member": best,
        "members": member_figures(outcomes),
        "cross_validation": {"folds": min(settings.folds, len(set(groups))), **standing_facts(standing)},
    }
    return router, facts


def standing_facts(standing: Standing) -> dict[str, Any]:
    """As JSON has it."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(standing)))
    return plain


def verdict(standing: Standing, best: str) -> str:
    """Why a router was promoted or not, in a sentence."""
    interval = standing.interval
    between = "unknown" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
    figures = (
        f"token F1 {standing.routed:.3f} routed, {standing.best:.3f} by {best} alone, {standing.oracle:.3f} at most; "
        f"gain {standing.difference:+.3f}, 95 % interval {between}"
    )
    if standing.beats_best:
        return f"the router beats the best single member in cross-validation: {figures}"
    return (
        f"the router does not beat the best single member by more than chance in cross-validation, so {best} answers "
        f"every question: {figures}"
    )


def _texts(asked: Sequence[AskedQuestion]) -> list[str]:
    return [one.question for one in asked]
