"""One system: trained, asked, and measured, each part once, whatever interrupts it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.compare.arms import Arm
from ftkit.compare.asking import ask_all
from ftkit.compare.combining import Memory, choose, combined_system
from ftkit.compare.counterfactual import measure_counterfactuals
from ftkit.compare.from_answers import answer_sheet
from ftkit.compare.opened import ANSWERS, Opened
from ftkit.compare.routing import AnySeat, routed_seat
from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, sheet_from
from ftkit.compare.updating import measure_updates
from ftkit.compare.variants import Variant
from ftkit.compare.wordings import measure_wordings
from ftkit.compare.work import NOTHING, Cost, read_cost, total_cost
from ftkit.files import sha256_json, write_json
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.measured import measured_from
from ftkit.rag.outcomes import outcomes_of
from ftkit.rag.questions import AskedQuestion

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
        open: Opens it.
    """

    arm: Arm
    run: Path | None
    key: str
    evaluation: Evaluation
    sheet: Sheet
    cost: Cost
    open: Callable[[], AnySeat]


def answer_questions(opened: Opened, arm: Arm, members: Mapping[str, Answered]) -> Answered:
    """Train a system and ask it the test questions; what is there is taken as it is.

    Args:
        opened: The comparison.
        arm: The system.
        members: Those that it combines, with the same seed; empty for any other.

    Raises:
        Interrupted: After saving what the next call goes on from.
    """
    combined = arm.system.combines
    if combined is not None:
        decisive = [[members[name].key for name in combined.of], combined.model_dump(), opened.held_sha256]
        key = sha256_json(decisive)[:12]
        cost = total_cost([members[name].cost for name in combined.of])
        return _asked(opened, arm, None, key, cost, lambda: combined_seat(opened, arm, members, key))
    arm, run = opened.trainer_of(opened.variants[arm.variant]).train(arm)
    spec = opened.spec
    key = sha256_json(
        [
            *opened.ground, opened.workload.test_sha256, None if run is None else run.name, arm.system.retrieval,
            arm.system.passages or spec.reader.passages, spec.answer.max_new_tokens,
            arm.system.hops or spec.answer.hops, opened.shared.index.folder.name, "with confidences as generated",
        ]
    )[:12]  # fmt: skip
    cost = NOTHING if run is None else read_cost(run)
    return _asked(opened, arm, run, key, cost, lambda: opened.seat(arm, run))


def _asked(
    opened: Opened, arm: Arm, run: Path | None, key: str, cost: Cost, seat_of: Callable[[], AnySeat]
) -> Answered:
    evaluation = _evaluation(opened, arm, key, seat_of, opened.workload.test)
    return Answered(
        arm=arm,
        run=run,
        key=key,
        evaluation=evaluation,
        sheet=answer_sheet(
            evaluation,
            opened.texts,
            flops_a_token=opened.flops_a_token,
            branches=arm.system.combines is not None and arm.system.combines.kind == "mixture",
        ),
        cost=cost,
        open=seat_of,
    )


def _evaluation(
    opened: Opened, arm: Arm, key: str, seat_of: Callable[[], AnySeat], questions: tuple[AskedQuestion, ...]
) -> Evaluation:
    """What a system answers to some questions, kept on the disk."""
    which = "" if questions is opened.workload.test else "-held"
    stored = opened.folder / ANSWERS / f"{arm.label}-{arm.seed}-{key}{which}.json"
    if not stored.is_file():
        log.info("%s: %d %squestions", arm.label, len(questions), "held-back " if which else "")
        cache = stored.with_suffix(".jsonl")
        seat = seat_of()
        found = ask_all(seat, questions, cache) if isinstance(seat, Seat) else seat.evaluate(questions)
        answers = [asdict(outcome.measured) for outcome in found.outcomes]
        write_json(stored, {"settings": found.settings, "answers": answers})
        cache.unlink(missing_ok=True)
    values = json.loads(stored.read_text(encoding="utf-8"))
    pairs = list(zip(questions, map(measured_from, values["answers"]), strict=True))
    return Evaluation(outcomes=outcomes_of(pairs, None), threshold=None, settings=values["settings"])


def combined_seat(opened: Opened, arm: Arm, members: Mapping[str, Answered], key: str) -> AnySeat:
    """A combination, with what held-back questions chose; that is kept on the disk."""
    combined = arm.system.combines
    assert combined is not None, "a combination"
    held = opened.workload.held
    seats = {name: members[name].open() for name in combined.of}
    stored = opened.folder / ANSWERS / f"{arm.label}-{arm.seed}-{key}-choice.json"
    if combined.kind == "router":
        answered = {
            name: _evaluation(opened, one.arm, one.key, lambda name=name: seats[name], held)  # type: ignore[misc]
            for name, one in ((name, members[name]) for name in combined.of)
        }
        tests = {name: members[name].evaluation for name in combined.of}
        return routed_seat(arm, seats, answered, tests, opened.shared.encoders.query, stored)
    plain = {name: one for name, one in seats.items() if isinstance(one, Seat)}
    system, seat = combined_system(plain, combined, Memory(folder=opened.folder, train=opened.workload.train))
    if not stored.is_file():
        write_json(stored, choose(system, seat, held).to_dict())
    choice = json.loads(stored.read_text(encoding="utf-8"))
    weighed = replace(system, weight=choice["weight"], temperature=choice["temperature"])
    return replace(seat, arm=arm, system=weighed, run=None)


def parts_of(opened: Opened) -> dict[str, tuple[Part, Any]]:
    """What is measured beside the answers, and what decides each beside the system."""
    measure = opened.spec.measure
    found: dict[str, tuple[Part, Any]] = {}
    if measure.wordings:
        found["wordings"] = (_wordings, measure.wordings)
    if measure.style:
        found["style"] = (_style, measure.style)
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


def _wordings(opened: Opened, answered: Answered) -> Sheet:
    return measure_wordings(answered.open(), opened.workload.test, opened.spec.measure.wordings)


def _style(opened: Opened, answered: Answered) -> Sheet | None:
    assert opened.manner is not None, "asked for"
    return opened.manner.measure(answered.evaluation)


def _counterfactuals(opened: Opened, answered: Answered) -> Sheet | None:
    seat = answered.open()
    if not isinstance(seat, Seat):
        return None
    return measure_counterfactuals(seat, opened.workload.test, opened.spec.measure.counterfactuals)


def _general(opened: Opened, answered: Answered) -> Sheet | None:
    if answered.arm.system.combines is not None:
        return None  # general text has one generator's distribution, and here are several
    seat = answered.open()
    assert opened.elsewhere is not None and isinstance(seat, Seat), "asked for"
    return opened.elsewhere.measure(seat)


def _updates(count: int) -> Part:
    def measured(opened: Opened, answered: Answered) -> Sheet | None:
        def retrain(variant: Variant) -> tuple[RagSystem, Cost]:
            arm, run = opened.trainer_of(variant).train(
                Arm(name=answered.arm.name, system=answered.arm.system, seed=answered.arm.seed, variant=variant.name)
            )
            assert run is not None, "it learns"
            return opened.seat(arm, run).system, read_cost(run)

        untouched = opened.spec.measure.untouched
        seat = answered.open()
        if not isinstance(seat, Seat):
            return None
        before = answered.evaluation.outcomes
        return measure_updates(seat, opened.workload, opened.edits[:count], before, untouched, retrain)

    return measured
