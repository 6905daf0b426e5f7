"""One system: trained, asked, and measured, each part once, whatever interrupts it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.compare.arms import Arm
from ftkit.compare.asking import ask_all
from ftkit.compare.counterfactual import measure_counterfactuals
from ftkit.compare.from_answers import answer_sheet
from ftkit.compare.opened import Opened
from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, sheet_from
from ftkit.compare.updating import measure_updates
from ftkit.compare.variants import Variant
from ftkit.compare.wordings import measure_wordings
from ftkit.compare.work import NOTHING, Cost, read_cost
from ftkit.files import sha256_json, write_json
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.measured import measured_from
from ftkit.rag.outcomes import outcomes_of

ANSWERS = "answers"
# Of what is measured beside the answers: its name, and what of the spec decides it.
Part = Callable[[Opened, "Answered"], Sheet | None]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A system with one seed that was asked the test questions.

    Attributes:
        arm: With the steps that it was trained.
        run: Of its training; None where nothing was trained.
        key: Digest of all that decides its answers.
        evaluation: They.
        sheet: Figures that they hold beside those of the evaluation.
        cost: Of training.
    """

    arm: Arm
    run: Path | None
    key: str
    evaluation: Evaluation
    sheet: Sheet
    cost: Cost


def answer_questions(opened: Opened, arm: Arm) -> Answered:
    """Train a system and ask it the test questions; what is there is taken as it is.

    Raises:
        Interrupted: After saving what the next call goes on from.
    """
    arm, run = opened.trainer_of(opened.variants[arm.variant]).train(arm)
    spec = opened.spec
    key = sha256_json(
        [
            *opened.ground, opened.workload.test_sha256, None if run is None else run.name, arm.system.retrieval,
            arm.system.passages or spec.reader.passages, spec.answer.max_new_tokens,
            arm.system.hops or spec.answer.hops, opened.shared.index.folder.name, "with confidences",
        ]
    )[:12]  # fmt: skip
    stored = opened.folder / ANSWERS / f"{arm.label}-{arm.seed}-{key}.json"
    if not stored.is_file():
        log.info("%s: %d questions", arm.label, len(opened.workload.test))
        cache = stored.with_suffix(".jsonl")
        found = ask_all(opened.seat(arm, run), opened.workload.test, cache)
        answers = [asdict(outcome.measured) for outcome in found.outcomes]
        write_json(stored, {"settings": found.settings, "answers": answers})
        cache.unlink()
    values = json.loads(stored.read_text(encoding="utf-8"))
    pairs = list(zip(opened.workload.test, map(measured_from, values["answers"]), strict=True))
    evaluation = Evaluation(outcomes=outcomes_of(pairs, None), threshold=None, settings=values["settings"])
    return Answered(
        arm=arm,
        run=run,
        key=key,
        evaluation=evaluation,
        sheet=answer_sheet(evaluation, opened.texts, flops_a_token=opened.flops_a_token),
        cost=NOTHING if run is None else read_cost(run),
    )


def parts_of(opened: Opened) -> dict[str, tuple[Part, Any]]:
    """What is measured beside the answers, and what decides each beside the system."""
    measure = opened.spec.measure
    found: dict[str, tuple[Part, Any]] = {}
    if measure.wordings:
        found["wordings"] = (_wordings, measure.wordings)
    if measure.counterfactuals:
        found["counterfactuals"] = (_counterfactuals, measure.counterfactuals)
    if opened.general is not None:
        found["general"] = (_general, opened.general.sha256)
    for count in measure.updates:
        edits = [[one.asked.id, one.document.sha256] for one in opened.edits[:count]]
        found[f"updates-{count}"] = (_updates(count), [edits, measure.untouched])
    return found


def measured_part(opened: Opened, answered: Answered, name: str) -> Sheet | None:
    """One part of a system; what is there is taken as it is. None where it has no such part."""
    part, decisive = parts_of(opened)[name]
    arm = answered.arm
    chosen = opened.spec.measure.updates_of
    if name.startswith("updates") and chosen is not None and arm.name not in chosen:
        return None
    key = sha256_json([answered.key, name, decisive])[:12]
    stored = opened.folder / ANSWERS / f"{arm.label}-{arm.seed}-{name}-{key}.json"
    if not stored.is_file():
        log.info("%s: %s", arm.label, name)
        sheet = part(opened, answered)
        write_json(stored, None if sheet is None else sheet.to_dict())
    values: Mapping[str, Any] | None = json.loads(stored.read_text(encoding="utf-8"))
    return None if values is None else sheet_from(values)


def _seat(opened: Opened, answered: Answered) -> Seat:
    return opened.seat(answered.arm, answered.run)


def _wordings(opened: Opened, answered: Answered) -> Sheet:
    return measure_wordings(_seat(opened, answered), opened.workload.test, opened.spec.measure.wordings)


def _counterfactuals(opened: Opened, answered: Answered) -> Sheet | None:
    count = opened.spec.measure.counterfactuals
    return measure_counterfactuals(_seat(opened, answered), opened.workload.test, count)


def _general(opened: Opened, answered: Answered) -> Sheet:
    assert opened.elsewhere is not None, "asked for"
    return opened.elsewhere.measure(_seat(opened, answered))


def _updates(count: int) -> Part:
    def measured(opened: Opened, answered: Answered) -> Sheet:
        def retrain(variant: Variant) -> tuple[RagSystem, Cost]:
            arm, run = opened.trainer_of(variant).train(
                Arm(name=answered.arm.name, system=answered.arm.system, seed=answered.arm.seed, variant=variant.name)
            )
            assert run is not None, "it learns"
            return opened.seat(arm, run).system, read_cost(run)

        outcomes = answered.evaluation.outcomes
        right = [one.question for one in outcomes if one.right and one.question.answers]
        untouched = opened.spec.measure.untouched
        edits = opened.edits[:count]
        return measure_updates(_seat(opened, answered), opened.workload, edits, right, untouched, retrain)

    return measured
