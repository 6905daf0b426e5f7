"""What is said of methods, held against figures: supported, refuted, or undetermined at this scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftkit.compare.contrasts import LEVEL, Contrast, contrast_of, holm
from ftkit.compare.figures import Standing
from ftkit.recipe import ClaimSection
from ftkit.recipe.comparing import lower_is_better

Judgement = Literal["supported", "refuted", "undetermined", "not measured"]


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """A claim and what became of it.

    Attributes:
        claim: As it was written down before the run.
        contrast: Of its two systems; None where one of them was not measured.
        verdict: ``supported``: a is better, by more than the margin, at a family-wise level of 5 % over all claims;
            of ``equal``: all of the 95 % interval is within the margin. ``refuted``: the same the other way round,
            a is not better by so much; of ``equal``: all of the interval is outside. ``undetermined``: neither.
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
            "test": "none" if found is None else found.test,
            "verdict": self.verdict,
        }


def judge(claims: Sequence[ClaimSection], standings: Mapping[str, Standing]) -> list[JudgedClaim]:
    """Judge all claims together, as p-values are corrected for all of them."""
    found = [_contrast(one, standings) for one in claims]
    tested = [one for claim, one in zip(claims, found, strict=True) if one is not None and claim.kind == "better"]
    corrected = iter(holm(tested))
    judged = []
    for claim, one in zip(claims, found, strict=True):
        settled = next(corrected) if one is not None and claim.kind == "better" else one
        judged.append(JudgedClaim(claim=claim, contrast=settled, verdict=_verdict(claim, settled)))
    return judged


def _contrast(claim: ClaimSection, standings: Mapping[str, Standing]) -> Contrast | None:
    a, b = standings.get(claim.a), standings.get(claim.b)
    if a is None or b is None:
        return None
    return contrast_of(a, b, claim.metric, margin=claim.margin if claim.kind == "better" else 0.0)


def _verdict(claim: ClaimSection, found: Contrast | None) -> Judgement:
    if found is None or found.difference is None:
        return "not measured"
    if claim.kind == "equal":
        return _equality(claim.margin, found)
    gain = (-found.difference if lower_is_better(claim.metric) else found.difference) - claim.margin
    if not gain or (found.test != "counted" and (found.p_holm is None or found.p_holm > LEVEL)):
        return "undetermined"
    return "supported" if gain > 0 else "refuted"


def _equality(margin: float, found: Contrast) -> Judgement:
    low, high = found.low, found.high
    if found.test == "counted":
        low = high = found.difference
    if low is None or high is None:
        return "undetermined"
    if -margin <= low and high <= margin:
        return "supported"
    return "refuted" if low > margin or high < -margin else "undetermined"
