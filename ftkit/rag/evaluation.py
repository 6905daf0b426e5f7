"""How well a system answers a question set, and which step loses what it gets wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ftkit.errors import DataError
from ftkit.files import sha256_file
from ftkit.rag.answering import RagSystem
from ftkit.rag.blame import BLAMES, Blame
from ftkit.rag.figures import cluster_of, figures_of
from ftkit.rag.intervals import Figure, intervals_of, values_of
from ftkit.rag.likelihood import gives_likelihoods
from ftkit.rag.measuring import Finder, measure
from ftkit.rag.outcomes import Outcome, confidences_of, outcomes_of
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.threshold import (
    CurvePoint,
    StoredThreshold,
    choose_threshold,
    risk_coverage,
    write_threshold,
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A question set's outcomes and the figures over them.

    Attributes:
        outcomes: In the order of the set.
        threshold: That was applied; None for none.
        settings: Of the system: index, version, generator and so on.
    """

    outcomes: tuple[Outcome, ...]
    threshold: float | None
    settings: dict[str, Any]

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name, ``latency_s.retrieve.p50`` for one within others."""
        return figures_of(self.outcomes)

    @cached_property
    def values(self) -> dict[str, float | None]:
        """Each figure's value."""
        return values_of(self.figures, len(self.outcomes))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """Each figure's 95 % interval, clustered by document."""
        return intervals_of(self.figures, [cluster_of(outcome.question) for outcome in self.outcomes])

    @property
    def blame(self) -> dict[Blame, int]:
        """Questions of each class; they sum to the number of questions."""
        counts = Counter(outcome.blame for outcome in self.outcomes)
        return {name: counts[name] for name in BLAMES}

    @cached_property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Risk and coverage at every threshold."""
        return risk_coverage(*confidences_of(self.outcomes))

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        values = _nested(self.values)
        blame_percent = values.pop("blame_percent")
        first = ("exact_match", "f1", "nll", "recall_at_1", "recall_at_5", "mrr", "coverage")
        return {
            **{name: values.pop(name) for name in first},
            "blame": self.blame,
            "blame_percent": blame_percent,
            **values,
            "questions": len(self.outcomes),
            "threshold": self.threshold,
            "intervals": _nested(self.intervals),
            "settings": self.settings,
            "risk_coverage": [asdict(point) for point in self.curve],
            "answers": [outcome.to_dict() for outcome in self.outcomes],
        }


def evaluate_rag(
    system: RagSystem,
    questions: Sequence[AskedQuestion],
    *,
    cache: Path | None = None,
    generator: str = "",
    finder: Finder | None = None,
    confidences: bool = True,
    together: int = 1,
) -> Evaluation:
    """Ask a system every question, under its threshold.

    Args:
        system: At least `ftkit.rag.measuring.DEPTH` passages are searched for, however few its reader is given.
        questions: At least one.
        cache: See `ftkit.rag.measuring.measure`.
        generator: Its name, for the record.
        finder: See `ftkit.rag.measuring.measure`.
        confidences: See there; without them there is no risk-coverage curve.
        together: See there.
    """
    measured = measure(system, questions, cache=cache, finder=finder, confidences=confidences, together=together)
    settings = {
        "index": str(system.index.folder),
        "version": system.index.version,
        "generator": generator or system.index.settings.generator,
        "generator_sha256": system.identity,
        "encoder_sha256": system.encoders.sha256,
        **asdict(system.conditions),
        "max_new_tokens": system.max_new_tokens,
    }
    pairs = list(zip(questions, measured, strict=True))
    return Evaluation(outcomes=outcomes_of(pairs, system.threshold), threshold=system.threshold, settings=settings)


def set_threshold(
    evaluation: Evaluation, system: RagSystem, data: Path, *, max_risk: float
) -> tuple[Evaluation, StoredThreshold]:
    """Choose a threshold by an evaluation on dev data and keep it in the index.

    Args:
        evaluation: Of ``system`` on ``data``, under any threshold.
        system: That was asked.
        data: The questions' file, whose digest is kept.
        max_risk: Share of wrong answers among those given.

    Returns:
        The evaluation under the new threshold, and the threshold.

    Raises:
        DataError: The generator gives no likelihoods, or no threshold keeps the risk; the former one stays then.
    """
    if not gives_likelihoods(system.generator):
        raise DataError(
            "this generator gives no likelihoods, so no confidence", fix="Use a run, a model or an adapter."
        )
    choice = choose_threshold(*confidences_of(evaluation.outcomes), max_risk)
    if choice.threshold is None:
        best = min(choice.curve, key=lambda point: point.risk, default=None)
        least = (
            "it answers nothing" if best is None else f"the least is {best.risk:.3f}, at coverage {best.coverage:.3f}"
        )
        raise DataError(f"no threshold keeps the risk at {max_risk:g} on {data}: {least}", fix="Allow a higher risk.")
    point = next(point for point in choice.curve if point.threshold == choice.threshold)
    stored = StoredThreshold(
        threshold=choice.threshold,
        max_risk=max_risk,
        coverage=point.coverage,
        risk=point.risk,
        questions=len(evaluation.outcomes),
        data_sha256=sha256_file(data),
        generator=system.identity,
        **asdict(system.conditions),
    )
    write_threshold(system.index.folder, stored)
    pairs = [(outcome.question, outcome.measured) for outcome in evaluation.outcomes]
    return (
        replace(evaluation, outcomes=outcomes_of(pairs, choice.threshold), threshold=choice.threshold),
        stored,
    )


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` as ``{"a": {"b": 1}}``."""
    result: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        inner = result
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = list(value) if isinstance(value, tuple) else value
    return result
