"""How many questions fit into the time there is: measured on a few of them, before anything long begins."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftkit.compare.arms import Arm, arms_of
from ftkit.compare.workload import FEWEST_TEST, Workload
from ftkit.errors import ResourceError
from ftkit.files import sha256_json, write_json
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.likelihood import answer_loss
from ftkit.recipe import CompareSpec, SystemSection

PLAN = "plan.json"
PROBES = 4  # questions that are read to learn the speed
ASKING_SHARE = 0.45  # of the time goes to asking, the rest to training
FEWEST_TRAIN = 16
WORDED = 8  # wordings of each question of measure.wordings
# Seconds of a token in training over one in a forward pass: gradients of activations, of what learns, the optimizer.
TRAINING_OVER_FORWARD = 2.6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is done of what could be.

    Attributes:
        train: Training questions.
        test: Test questions.
        estimated_s: Seconds that all systems are expected to take.
        per_question_s: Of asking one test question, with its scores.
        per_token_s: Of training on one token.
    """

    train: int
    test: int
    estimated_s: float
    per_question_s: float
    per_token_s: float


def choose_plan(
    spec: CompareSpec, workload: Workload, system: RagSystem, minutes: float | None, folder: Path
) -> Plan:
    """As many questions as fit; what was chosen before for the same workload and systems stays.

    Args:
        spec: Resolved.
        workload: All of it.
        system: Frozen, with the base generator: its speed is everybody's.
        minutes: None for all questions.
        folder: Of the comparison; the plan is kept in it.

    Raises:
        ResourceError: Not even the fewest questions that tell something fit.
    """
    key = _key(spec, workload, minutes)
    path = folder / PLAN
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return Plan(**stored["plan"])
    per_question, per_token, length = _speed(system, workload)
    arms = arms_of(spec)
    asking = per_question * len(arms)
    training = per_token * length * sum(_passes(spec, one.system) * _share(one, workload) for one in arms)
    train, test = len(workload.train), len(workload.test)
    fixed = per_question * _asked_beside(spec, arms)
    for count in spec.measure.updates:
        training += per_token * length * sum(_passes(spec, one) for one in _trained_anew(spec))
        fixed += per_question * (count + spec.measure.untouched) * len(spec.measure.updates_of or spec.systems)
    # A curve's numbers are below that of all questions.
    fewest = max([FEWEST_TRAIN, *(int(one) + 1 for one in spec.measure.curve if one >= 1)])
    if minutes is not None:
        seconds = 60 * minutes - fixed
        test = min(test, int(ASKING_SHARE * seconds / asking))
        left = seconds - test * asking
        train = min(train, int(left / training)) if training else train
        if test < min(FEWEST_TEST, len(workload.test)) or train < min(fewest, len(workload.train)):
            need = max(FEWEST_TEST * asking / ASKING_SHARE, fewest * training / (1 - ASKING_SHARE))
            need = (need + fixed) / 60
            raise ResourceError(
                f"{minutes:g} minutes are enough for {max(train, 0)} training and {max(test, 0)} test questions",
                fix=f"Give it {math.ceil(10 * need) / 10:g} minutes at least, or compare fewer systems.",
            )
    plan = Plan(
        train=train,
        test=test,
        estimated_s=test * asking + train * training + fixed,
        per_question_s=per_question,
        per_token_s=per_token,
    )
    write_json(path, {"key": key, "plan": asdict(plan)})
    log.info(
        "%d of %d training and %d of %d test questions; about %.0f minutes",
        train, len(workload.train), test, len(workload.test), plan.estimated_s / 60,
    )  # fmt: skip
    return plan


def _key(spec: CompareSpec, workload: Workload, minutes: float | None) -> str:
    # What is claimed of the figures, and measured beside the answers, draws no other questions: all that is known
    # of these would be lost. The time is kept all the same, as nothing is begun after it.
    beside = {"claims", "primary", "staged", "measure", "output", "budget"}
    decisive = spec.model_dump(mode="json", exclude=beside)
    return sha256_json([decisive, minutes, workload.sha256, workload.test_sha256])


def _share(arm: Arm, workload: Workload) -> float:
    """Of the training questions that a variant has; about, where it is not a number of them."""
    try:
        count = float(arm.variant)
    except ValueError:
        return 1.0
    return min(1.0, count if count < 1 else count / max(1, len(workload.train)))


def _asked_beside(spec: CompareSpec, arms: Sequence[Arm]) -> int:
    """Questions that are asked beside those of the test, whose number does not depend on theirs."""
    own = [one for one in arms if not one.variant]
    given = [one for one in own if one.system.retrieval != "none"]
    return spec.measure.style + WORDED * spec.measure.wordings * len(own) + spec.measure.counterfactuals * len(given)


def _trained_anew(spec: CompareSpec) -> list[SystemSection]:
    """Systems that a changed document is trained into."""
    chosen = spec.measure.updates_of or tuple(spec.systems)
    systems = [spec.systems[name] for name in chosen]
    return [one for one in systems if one.learns and one.retrieval == "none"]


def _speed(system: RagSystem, workload: Workload) -> tuple[float, float, float]:
    """Seconds of asking a question, seconds of training on a token, and tokens of a reading."""
    chosen = _spread(workload.test, PROBES)
    system.ask(chosen[0].question)  # the first pays for what is loaded on first use
    started = time.perf_counter()
    for one in chosen:
        system.read(one.question, system.retrieve(one.question))
    asking = (time.perf_counter() - started) / len(chosen)
    tokens, seconds = 0, 0.0
    for one in chosen:
        ids = system.prompts.prompt(one.question, [hit.passage.content for hit in system.retrieve(one.question)]).ids
        started = time.perf_counter()
        answer_loss(system.generator, ids, one.answers[0] if one.answers else one.question)
        seconds += time.perf_counter() - started
        tokens += len(ids)
    likelihood = seconds / len(chosen)
    return asking + likelihood, TRAINING_OVER_FORWARD * seconds / tokens, tokens / len(chosen)


def _spread(asked: Sequence, count: int) -> list:  # type: ignore[type-arg]
    """Some of a sequence, from all over it."""
    return [asked[number * len(asked) // count] for number in range(min(count, len(asked)))]


def _passes(spec: CompareSpec, system: SystemSection) -> float:
    """Readings that training takes of each question, in trained ones: a forward pass alone is a part of one."""
    reference = system if spec.equal_flops is None else spec.systems[spec.equal_flops]
    return max(_own_passes(spec, system), _own_passes(spec, reference) if _is_tuned(system) else 0.0)


def _is_tuned(system: SystemSection) -> bool:
    return bool(system.learns or "reader" in system.stages)


def _own_passes(spec: CompareSpec, system: SystemSection) -> float:
    total = spec.train.epochs if _is_tuned(system) else 0.0
    if "retriever" in system.stages:
        total += spec.retriever.scored / TRAINING_OVER_FORWARD
    if "joint" in system.stages:
        total += spec.joint.rounds * (spec.joint.passages + 1) * (1 + 1 / TRAINING_OVER_FORWARD)
    return total
