"""What is said of methods, held against figures: supported, refuted, or undetermined at this scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftkit.compare.contrasts import LEVEL, Contrast, contrast_of, equivalence_of, holm
from ftkit.compare.figures import Standing
from ftkit.recipe import ClaimSection
from ftkit.recipe.comparing import is_counted, lower_is_better

Judgement = Literal["supported", "refuted", "undetermined", "not measured"]


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim and what became of it.

    Attributes:
        claim: As it was written down before the run.
        contrast: Of its two systems; None where one of them was not measured.
        verdict: ``supported``: a is better, by more than the margin, or, of ``equal``, the two differ by less than
            it, at a family-wise level of 5 % over all claims that were declared. ``refuted``: the opposite, in the
            same way. ``undetermined``: neither.
    """

    claim: ClaimSection
    contrast: Contrast | None
    verdict: Judgement

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json."""
        one, found = self.claim, self.contrast
        return {
            **one.model_dump(mode="json"),
            "difference": None if found is None else found.difference,
            "low": None if found is None else found.low,
            "high": None if found is None else found.high,
            "p": None if found is None else found.p,
            "p_holm": None if found is None else found.p_holm,
            "documents": None if found is None else found.documents,
            "test": "none" if found is None else found.test,
            "verdict": self.verdict,
        }


def judge(claims: Sequence[ClaimSection], standings: Mapping[str, Standing]) -> list[JudgedClaim]:
    """Judge all claims together, as p-values are corrected for all of them."""
    found = [_contrast(one, standings) for one in claims]
    known = [one for one in found if one is not None]
    corrected = iter(holm(known, family=sum(not is_counted(one.metric) for one in claims)))
    judged = []
    for claim, one in zip(claims, found, strict=True):
        settled = None if one is None else next(corrected)
        judged.append(JudgedClaim(claim=claim, contrast=settled, verdict=_verdict(claim, settled)))
    return judged


def _contrast(claim: ClaimSection, standings: Mapping[str, Standing]) -> Contrast | None:
    a, b = standings.get(claim.a), standings.get(claim.b)
    if a is None or b is None:
        return None
    if claim.kind == "equal":
        return equivalence_of(a, b, claim.metric, claim.margin)
    return contrast_of(a, b, claim.metric, margin=claim.margin)


def _verdict(claim: ClaimSection, found: Contrast | None) -> Judgement:
    if found is None or found.difference is None:
        return "not measured"
    if claim.kind == "equal":
        gain = claim.margin - abs(found.difference)
    else:
        gain = (-found.difference if lower_is_better(claim.metric) else found.difference) - claim.margin
    if not gain or (found.test != "counted" and (found.p_holm is None or found.p_holm > LEVEL)):
        return "undetermined"
    return "supported" if gain > 0 else "refuted"
