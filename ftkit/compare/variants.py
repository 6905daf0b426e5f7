"""Other training questions than the comparison's own: fewer of them, wrong ones among them, kinds out of balance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ftkit.compare.foils import foil_for, form_of
from ftkit.compare.workload import Workload
from ftkit.errors import DataError
from ftkit.rag.questions import AskedQuestion
from ftkit.recipe import MeasureSection


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way of training.

    Attributes:
        name: Empty for the comparison's own.
        workload: With the training questions of the variant; all else is the same.
    """

    name: str
    workload: Workload


def variants_of(measure: MeasureSection, workload: Workload) -> dict[str, Variant]:
    """The comparison's own questions, under an empty name, and all variants of them.

    Raises:
        DataError: A variant asks for more questions than there are.
    """
    found = {"": Variant(name="", workload=workload)}
    for one in measure.curve:
        count = questions_of(one, len(workload.train))
        if count >= len(workload.train):
            raise DataError(
                f"measure.curve: {count} of {len(workload.train)} training questions is no smaller number",
                fix="Name smaller ones; all of them are the comparison itself.",
            )
        found[f"{one:g}"] = Variant(name=f"{one:g}", workload=workload.drawn(count, None))
    if measure.noise is not None:
        noisy = replace(workload, train=_noisy(workload.train, measure.noise))
        found["noise"] = Variant(name="noise", workload=noisy)
    if measure.imbalance is not None:
        uneven = replace(workload, train=_uneven(workload.train, measure.imbalance))
        found["imbalance"] = Variant(name="imbalance", workload=uneven)
        # As many questions, of all kinds alike: what is lost against these is lost to the imbalance alone.
        found["balance"] = Variant(name="balance", workload=workload.drawn(len(uneven.train), None))
    return found


def questions_of(count: float, there: int) -> int:
    """How many questions a point of a curve has; a share is of those that there are."""
    return max(2, round(count * there)) if count < 1 else int(count)


def commonest_form(asked: Sequence[AskedQuestion]) -> str:
    """Of the answers; the first in the alphabet where two are as common."""
    counts = Counter(form_of(one.answers[0]) for one in asked if one.answers)
    return min(counts, key=lambda form: (-counts[form], form), default="none")


def _noisy(asked: Sequence[AskedQuestion], share: float) -> tuple[AskedQuestion, ...]:
    """With the first answer of a share of them replaced by another of its form; the document stays."""
    foils = {one.id: foil_for(one, asked, "") for one in asked if one.answers}
    ranked = sorted((one for one in asked if foils.get(one.id)), key=lambda one: _draw("noise", one))
    wanted = round(share * len(foils))
    if len(ranked) < wanted:
        raise DataError(
            f"measure.noise: {wanted} of {len(foils)} answers are to be swapped, and {len(ranked)} have another of "
            "their form",
            fix=f"Take {len(ranked) / max(1, len(foils)):.2f} at most.",
        )
    wrong = {one.id for one in ranked[:wanted]}
    return tuple(replace(one, answers=(str(foils[one.id]),)) if one.id in wrong else one for one in asked)


def _uneven(asked: Sequence[AskedQuestion], share: float) -> tuple[AskedQuestion, ...]:
    """Without a share of those that are not of the commonest form."""
    common = commonest_form(asked)
    rarer = [one for one in asked if one.answers and form_of(one.answers[0]) != common]
    gone = {one.id for one in sorted(rarer, key=lambda one: _draw("imbalance", one))[: round(share * len(rarer))]}
    return tuple(one for one in asked if one.id not in gone)


def _draw(purpose: str, asked: AskedQuestion) -> bytes:
    return hashlib.sha256(f"{purpose}\n{asked.id}\n{asked.question}".encode()).digest()
