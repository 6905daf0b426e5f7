"""The advice: choice, why, what fell and why, what would change it, and what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ftkit.advise.evidence import Evidence, read_evidence
from ftkit.advise.options import CRITERIA, Criterion, Option, Reason
from ftkit.advise.ranking import ENOUGH, Ranking, rank
from ftkit.advise.rules import FEWEST_EXAMPLES
from ftkit.recipe.advise import AdviseSpec, SituationSection, VerifiabilitySection

QUICK_DRAWS = 400  # for switch points, which are looked for at many places
UNDETERMINED = "undetermined"
CHANGES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
COMPARE = (
    "ftkit recipes copy compare/ladder ladder.yaml",
    "ftkit compare ladder.yaml --budget 60 corpus.sources=DOCUMENTS data.train=EXAMPLES.jsonl "
    "data.test=QUESTIONS.jsonl data.validation=0.1",
)


ONES_OWN_QUESTIONS = ("ftkit rag index DOCUMENTS -o index", "ftkit rag questions index -o questions.jsonl")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do.

    Attributes:
        choice: An option, or ``undetermined``.
        confidence: Share of draws that it wins; of the likeliest where nothing is sure enough.
        runner_up: Next best; None where nothing else is left.
        because: Why, the weightiest first.
        eliminated: (option, why it fell).
        would_change_if: Where another option takes its place.
        next: Commands.
        ranking: That it follows from.
        evidence: That was read.
    """

    choice: str
    confidence: float
    runner_up: str | None
    because: tuple[Reason, ...]
    eliminated: tuple[tuple[str, Reason], ...]
    would_change_if: tuple[Reason, ...]
    next: tuple[str, ...]
    ranking: Ranking
    evidence: Evidence

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "choice": self.choice,
            "confidence": round(self.confidence, 4),
            "runner_up": self.runner_up,
            "because": [asdict(one) for one in self.because],
            "eliminated": [{"option": option, **asdict(reason)} for option, reason in self.eliminated],
            "would_change_if": [asdict(one) for one in self.would_change_if],
            "next": list(self.next),
            "shares": {option: round(share, 4) for option, share in self.ranking.shares.items()},
            "weights": self.ranking.weights,
            "evidence": {"systems": self.evidence.systems, "scale": self.evidence.scale},
        }


def advise(spec: AdviseSpec) -> Advice:
    """Which approach fits a situation.

    Raises:
        DataError: The evidence that is named cannot be read.
    """
    evidence = Evidence() if spec.evidence is None else read_evidence(spec.evidence)
    ranking = rank(spec, evidence)
    order = ranking.order
    choice = ranking.choice or UNDETERMINED
    best = order[0] if order else None
    return Advice(
        choice=choice,
        confidence=_confidence(ranking, best),
        runner_up=_runner_up(order, choice),
        because=_because(ranking, evidence, best),
        eliminated=_eliminated(ranking),
        would_change_if=tuple(_switches(spec, evidence, choice)),
        next=_next(choice, spec, evidence, ranking),
        ranking=ranking,
        evidence=evidence,
    )


def _confidence(ranking: Ranking, best: Option | None) -> float:
    if best is None:
        return 0.0
    return ranking.shares["rag"] + ranking.shares["hybrid"] if ranking.is_first_step else ranking.shares[best]


def _runner_up(order: list[Option], choice: str) -> str | None:
    others = [option for option in order if option != choice]
    return others[0] if others else None


def _because(ranking: Ranking, evidence: Evidence, best: Option | None) -> tuple[Reason, ...]:
    """What speaks for the best option, by how much it moves it away from the others."""
    if best is None:
        return (Reason(text="every option is out; the situation asks for what none can do", id="P-none"),)
    weighed: list[tuple[float, Reason]] = []
    for criterion, reason in evidence.reasons.items():
        weighed.append((ranking.weights[criterion] * _lead(ranking, evidence, best, criterion), reason))
    for belief in ranking.beliefs:
        if belief.criterion in evidence.reasons:
            continue  # one's own measurement stands in its place
        effects = [belief.effects.get(option, 0.0) for option in ranking.shares if option != best]
        lead = belief.effects.get(best, 0.0) - (sum(effects) / len(effects) if effects else 0.0)
        weighed.append((ranking.weights[belief.criterion] * lead, belief.reason))
    found: dict[str, Reason] = {}
    for weight, reason in sorted(weighed, key=lambda one: -one[0]):
        if weight > 0.01:
            found.setdefault(reason.id, reason)
    for veto in ranking.vetoes:
        found.setdefault(veto.reason.id, veto.reason)
    if ranking.is_first_step:
        both = ranking.shares["rag"] + ranking.shares["hybrid"]
        text = (
            f"rag and hybrid together win {both:.0%}; which of them is open, and the second begins with the first: "
            "an index is built either way, and a measurement then tells whether its reader is worth training"
        )
        return (*list(found.values())[:8], Reason(text=text, id="P-first-step"))
    share = f"{best} wins {ranking.shares[best]:.0%} of the draws; {ENOUGH:.0%} are asked for"
    if len(ranking.shares) == 1:
        share = "nothing else is left"
    return (*list(found.values())[:8], Reason(text=share, id="P-share"))


def _lead(ranking: Ranking, evidence: Evidence, best: Option, criterion: Criterion) -> float:
    """Over the next best, one that is out included: what was measured of it speaks for the best all the same."""
    known = {**evidence.utilities.get(criterion, {})}
    known |= {option: ranking.utilities[option][criterion] for option in ranking.shares}
    others = [one.mean for option, one in known.items() if option != best]
    return known[best].mean - (max(others) if others else 0.0)


def _eliminated(ranking: Ranking) -> tuple[tuple[str, Reason], ...]:
    out: list[tuple[str, Reason]] = [(veto.option, veto.reason) for veto in ranking.vetoes]
    for option, other in ranking.dominated.items():
        out.append((option, Reason(text=f"{other} is at least as good on everything that counts", id="P-dominated")))
    return tuple(out)


def _switches(spec: AdviseSpec, evidence: Evidence, choice: str) -> list[Reason]:
    """What else would be advised in a situation that differs in one thing."""

    def other(changed: AdviseSpec) -> str:
        return rank(changed, evidence, draws=QUICK_DRAWS).choice or UNDETERMINED

    now = spec.knowledge.changes_per_month or 0.0
    more = [rate for rate in CHANGES if rate > now]
    fewer = [rate for rate in reversed(CHANGES) if rate < now]
    found = []
    for rates, words in ((more, "from {:g} changes a month on"), (fewer, "at {:g} changes a month or fewer")):
        chosen = ((rate, other(_with(spec, "knowledge", changes_per_month=rate))) for rate in rates)
        if turned := next((one for one in chosen if one[1] != choice), None):
            found.append(Reason(text=f"{words.format(turned[0])}: {turned[1]}", id="S-changes"))
    for words, identifier, changed in _trials(spec):
        if (turned_to := other(changed)) != choice:
            found.append(Reason(text=f"{words}: {turned_to}", id=identifier))
    heaviest = max(value or 0.0 for value in spec.priorities.model_dump().values()) or 1.0
    for criterion in CRITERIA:
        turned_to = other(_with(spec, "priorities", **{criterion: 4 * heaviest}))
        if turned_to not in (choice, UNDETERMINED):
            text = f"if {criterion} counted four times as much as anything: {turned_to}"
            found.append(Reason(text=text, id="S-weights"))
    return found


def _trials(spec: AdviseSpec) -> list[tuple[str, str, AdviseSpec]]:
    """Situations that differ in one fact, in words."""
    required = spec.verifiability.citations == "required"
    citations = VerifiabilitySection(citations="unneeded" if required else "required")
    found = [
        (
            "if citations were not needed" if required else "if citations were required",
            "S-citations",
            spec.model_copy(update={"verifiability": citations}),
        )
    ]
    if not (spec.situation.offline and spec.situation.remote_index):
        cut_off = _situation(spec, offline=True, remote_index=True)
        words = "if it had to answer where the documents cannot be reached"
        found.append((words, "S-offline", spec.model_copy(update={"situation": cut_off})))
    if spec.situation.examples is None or spec.situation.examples >= FEWEST_EXAMPLES:
        without = spec.model_copy(update={"situation": _situation(spec, examples=0)})
        found.append(("without examples to train on", "S-examples", without))
    return found


def _with(spec: AdviseSpec, section: str, **values: float) -> AdviseSpec:
    return spec.model_copy(update={section: getattr(spec, section).model_copy(update=values)})


def _situation(spec: AdviseSpec, **values: object) -> SituationSection:
    return spec.situation.model_copy(update=values)


def _next(choice: str, spec: AdviseSpec, evidence: Evidence, ranking: Ranking) -> tuple[str, ...]:
    examples = "EXAMPLES.jsonl" if spec.situation.examples else "questions.jsonl"
    steps: dict[str, tuple[str, ...]] = {
        "prompting": ("ftkit chat smollm2-135m",),
        "fine-tuning": (
            "ftkit recipes copy lora tune.yaml", "ftkit check tune.yaml data=EXAMPLES.jsonl",
            "ftkit train tune.yaml data=EXAMPLES.jsonl",
        ),
        "rag": (
            "ftkit rag index DOCUMENTS -o index", "ftkit rag eval index --data QUESTIONS.jsonl", "ftkit serve index",
        ),
        "hybrid": (
            *(() if spec.situation.examples else ONES_OWN_QUESTIONS),
            "ftkit recipes copy rag/closed_world rag.yaml",
            f"ftkit rag train rag.yaml corpus=DOCUMENTS data.train={examples} data.validation=0.1",
            "ftkit rag eval runs/rag --data QUESTIONS.jsonl",
        ),
    }  # fmt: skip
    missing = [option for option in ranking.shares if option not in evidence.systems]
    if choice == UNDETERMINED:
        # What would tell most: the two that win most often, measured on the same questions.
        close = ranking.order[:2]
        told = f"  # then name its comparison.json as evidence; it tells {' from '.join(close)}" if close else ""
        return (*COMPARE[:-1], f"{COMPARE[-1]}{told}", "ftkit advise SPEC")
    more = (*COMPARE[:-1], f"{COMPARE[-1]}  # to see it on your own data") if missing or not evidence.systems else ()
    return (*steps[choice], *more)
