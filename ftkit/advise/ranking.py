"""From utilities to a choice: who wins how often when everything uncertain is drawn anew.

Each draw takes a utility of every option on every criterion and weights near those that were given; the option with
the highest weighted mean wins it. The share of draws that an option wins is how sure the choice is.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftkit.advise.evidence import Evidence
from ftkit.advise.literature import findings
from ftkit.advise.options import CRITERIA, OPTIONS, Belief, Criterion, Option, Reason, Utility, Veto
from ftkit.advise.rules import beliefs, vetoes
from ftkit.recipe.advise import AdviseSpec

DRAWS, SEED = 2000, 0
ENOUGH = 0.7  # below it, undetermined
CERTAIN = 0.9
UNKNOWN = Utility(mean=0.5, deviation=0.12)
BELIEVED = 0.1  # one standard deviation of what rules and papers say together
HARDLY = 0.25  # of the best accuracy that was measured
APART = 0.15  # of an option that was not measured, beside one that was
WEIGHT_SPREAD = 0.25
DEFAULT_WEIGHTS: dict[Criterion, float] = {
    "accuracy": 2.0, "factuality": 2.0, "latency": 0.5, "consistency": 0.5, "style": 0.5, "cost": 1.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Who wins, how often, and from what.

    Attributes:
        shares: Of draws won, by option that is not out.
        utilities: By option and criterion, of those that are out too.
        weights: By criterion.
        vetoes: Who is out.
        beliefs: What rules and papers said.
        dominated: By option, one that is at least as good on every criterion that counts.
        told: Whether the situation says anything that bears on the choice.
        measured: Options whose answers were measured.
    """

    shares: dict[Option, float]
    utilities: dict[Option, dict[Criterion, Utility]]
    weights: dict[Criterion, float]
    vetoes: tuple[Veto, ...]
    beliefs: tuple[Belief, ...]
    dominated: dict[Option, Option]
    told: bool
    measured: frozenset[Option]

    @property
    def order(self) -> list[Option]:
        """Best first."""
        return sorted(self.shares, key=lambda option: -self.shares[option])

    @property
    def choice(self) -> Option | None:
        """None where nothing is sure enough, or nothing was told."""
        best = self.order[0] if self.shares else None
        if best is None or not self.told:
            return None
        if self.shares[best] >= ENOUGH:
            return best
        return "rag" if self.is_first_step else None

    @property
    def is_first_step(self) -> bool:
        """Whether it is retrieval, and only open whether its reader is worth training.

        Retrieval is where both begin, so nothing is lost by starting there; a measurement then says whether to go on.
        """
        if "rag" not in self.shares or "hybrid" not in self.shares or self.measured & {"rag", "hybrid"}:
            return False
        return self.shares["rag"] + self.shares["hybrid"] >= CERTAIN and max(self.shares.values()) < ENOUGH


def rank(spec: AdviseSpec, evidence: Evidence, *, draws: int = DRAWS) -> Ranking:
    """Rank the options for a situation."""
    out = [*vetoes(spec), *_measured_out(evidence)]
    left = [option for option in OPTIONS if option not in {veto.option for veto in out}]
    held = [*beliefs(spec), *findings(spec)]
    weights = _weights(spec)
    utilities = {option: _utilities(option, held, evidence) for option in OPTIONS}
    of_left = {option: utilities[option] for option in left}
    shares = _shares(of_left, weights, draws) if left else {}
    return Ranking(
        shares=shares,
        utilities=utilities,
        weights=weights,
        vetoes=tuple(out),
        beliefs=tuple(held),
        dominated=_dominated(of_left, weights),
        measured=frozenset(evidence.utilities.get("accuracy", {})),
        told=bool(out) or bool(evidence.utilities) or is_told(spec),
    )


def _measured_out(evidence: Evidence) -> list[Veto]:
    """Options that were measured to answer worse than the base model does by itself: something is broken in them.

    And those that hardly ever answer rightly where another does: whatever they save, nobody wants their answers.
    """
    measured = evidence.utilities.get("accuracy", {})
    plain = measured.get("prompting")
    best = max(measured, key=lambda option: measured[option].mean, default=None)
    found = []
    for option, own in measured.items():
        if plain is not None and option != "prompting" and _is_below(own, plain, 1.0):
            text = f"measured to answer worse than the base model by itself ({own.mean:.2f} against {plain.mean:.2f})"
            found.append(Veto(option=option, reason=Reason(text=text, id="M-worse")))
        elif best is not None and _is_below(own, measured[best], HARDLY):
            text = f"measured to answer far worse than {best} ({own.mean:.2f} against {measured[best].mean:.2f})"
            found.append(Veto(option=option, reason=Reason(text=text, id="M-hardly")))
    return found


def _is_below(own: Utility, other: Utility, share: float) -> bool:
    """Whether it is below a share of the other, and by more than chance."""
    return own.mean < share * other.mean and other.mean - own.mean > 2 * math.hypot(own.deviation, other.deviation)


def is_told(spec: AdviseSpec) -> bool:
    """Whether anything is known of knowledge, sources, priorities or what is at hand."""
    sections = (spec.knowledge, spec.update, spec.verifiability, spec.priorities, spec.situation, spec.resources)
    return any(value is not None for section in sections for value in section.model_dump().values())


def _weights(spec: AdviseSpec) -> dict[Criterion, float]:
    given = spec.priorities.model_dump()
    if all(value is None for value in given.values()):
        return dict(DEFAULT_WEIGHTS)
    # Whoever names some priorities means that the others count less than they.
    named = [value for value in given.values() if value is not None]
    least = min(named)
    found = {key: min(least, 0.5) if given[key] is None else float(given[key]) for key in CRITERIA}
    return found if any(found.values()) else dict(DEFAULT_WEIGHTS)


def _utilities(option: Option, held: Sequence[Belief], evidence: Evidence) -> dict[Criterion, Utility]:
    found: dict[Criterion, Utility] = {}
    for criterion in CRITERIA:
        believed = _believed(option, criterion, held)
        measured = evidence.utilities.get(criterion, {})
        if option in measured:
            found[criterion] = measured[option]
        elif measured:
            # Beside the measured ones, as far from them as rules and papers say.
            shift = sum(measured[one].mean - _believed(one, criterion, held).mean for one in measured) / len(measured)
            found[criterion] = Utility(mean=_clipped(believed.mean + shift), deviation=APART)
        else:
            found[criterion] = believed
    return found


def _believed(option: Option, criterion: Criterion, held: Sequence[Belief]) -> Utility:
    about = [belief.effects[option] for belief in held if belief.criterion == criterion and option in belief.effects]
    if not any(belief.criterion == criterion for belief in held):
        return UNKNOWN
    return Utility(mean=_clipped(UNKNOWN.mean + sum(about)), deviation=BELIEVED)


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))


def _shares(
    utilities: Mapping[Option, Mapping[Criterion, Utility]], weights: Mapping[Criterion, float], draws: int
) -> dict[Option, float]:
    """With the same random numbers for every situation, so that a switch point is one of the situation."""
    rng = random.Random(SEED)
    won = dict.fromkeys(utilities, 0)
    for _ in range(draws):
        drawn = {key: max(0.0, weight * (1 + WEIGHT_SPREAD * rng.gauss(0, 1))) for key, weight in weights.items()}
        noise = {option: {key: rng.gauss(0, 1) for key in CRITERIA} for option in OPTIONS}
        totals = {
            option: sum(
                drawn[key] * (one.mean + one.deviation * noise[option][key]) for key, one in by_criterion.items()
            )
            for option, by_criterion in utilities.items()
        }
        won[max(totals, key=lambda option: totals[option])] += 1
    return {option: count / draws for option, count in won.items()}


def _dominated(
    utilities: Mapping[Option, Mapping[Criterion, Utility]], weights: Mapping[Criterion, float]
) -> dict[Option, Option]:
    counting = [key for key, weight in weights.items() if weight]
    found: dict[Option, Option] = {}
    for option, own in utilities.items():
        for other, others in utilities.items():
            gains = [others[key].mean - own[key].mean for key in counting]
            if other != option and other not in found and min(gains) >= 0 and max(gains) > 0.05:
                found[option] = other
                break
    return found
