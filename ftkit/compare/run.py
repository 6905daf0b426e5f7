"""`ftkit compare`: every system trained once, asked the same questions, and held against the others.

runs/compare/
  spec.yaml          resolved
  plan.json          how many questions, and the speeds that this was chosen by
  workload/          the questions as they were drawn, and what systems without passages learn from
  index-DIGEST/      by the encoders as they come
  trained/STAGES-DIGEST/   ordinary run folders; the digest is of all that decides them
  answers/           what each system answered, and its scores
  comparison.json    the figures
  comparison.html    the same to look at
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic as clock
from typing import Any

from ftkit.compare.arms import Arm, arms_of
from ftkit.compare.asking import Untrained, ask_all
from ftkit.compare.contrasts import contrasts_of
from ftkit.compare.document import Measured, comparison_document
from ftkit.compare.figures import Standing
from ftkit.compare.page import PAGE, write_comparison_page
from ftkit.compare.plan import Plan, choose_plan
from ftkit.compare.training import Trainer, write_lessons
from ftkit.compare.work import NOTHING, Cost, read_cost
from ftkit.compare.workload import Workload, read_workload
from ftkit.errors import Interrupted, OutputError
from ftkit.files import folder_lock, require_empty, sha256_json, write_json, write_text
from ftkit.models.find import find_base
from ftkit.notices import log, show_notices
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import RagSystem
from ftkit.rag.building import build_index, corpus_settings
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.measured import measured_from
from ftkit.rag.opening import beside
from ftkit.rag.outcomes import outcomes_of
from ftkit.rag.run import INDEX
from ftkit.rag.settings import read_settings
from ftkit.recipe import CompareSpec, dump_recipe

SPEC, COMPARISON, ANSWERS = "spec.yaml", "comparison.json", "answers"


@dataclass(kw_only=True)
class _State:
    """What one call holds open."""

    spec: CompareSpec
    workload: Workload
    folder: Path
    ground: tuple[str, ...]
    shared: Untrained
    base: Target
    trainer: Trainer
    plan: Plan
    done: dict[str, list[Evaluation]] = field(default_factory=dict)
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def compare(spec: CompareSpec, *, quiet: bool = False) -> dict[str, Any]:
    """Train and measure every system of a spec; what was done before for the same is taken as it is.

    Args:
        spec: What to compare. With ``budget`` questions are drawn so that it fits, and no system is begun after it.
        quiet: Warnings only on stderr.

    Returns:
        The content of comparison.json.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving what the same call goes on from.
    """
    show_notices(quiet=quiet)
    started = clock()
    spec = spec.resolved()
    folder = Path(spec.output or "")
    if not (folder / SPEC).is_file():
        require_empty(folder)
    workload = read_workload(spec)
    with folder_lock(folder):
        write_text(folder / SPEC, dump_recipe(spec))
        state = _open(spec, workload, folder)
        arms = state.trainer.order(arms_of(spec))
        for arm in arms:
            if spec.budget is not None and clock() - started > 60 * spec.budget:
                state.waiting.append(arm.name)
                continue
            try:
                _run_arm(state, arm)
            except Interrupted as stopped:
                what = f"{arm.name}: {stopped.problems[0].what}"
                raise Interrupted(what, fix="The same command goes on with it.") from None
            document = _write(state)
        if not state.done:
            raise OutputError(f"{folder}: the time was over before the first system", fix="Give it more minutes.")
        if state.waiting:
            log.warning(
                "time is over: %s wait. The same command goes on with them.", ", ".join(dict.fromkeys(state.waiting))
            )
            document = _write(state)
        return document


def _open(spec: CompareSpec, workload: Workload, folder: Path) -> _State:
    base = find_base(spec.model.path, spec.model.revision)
    encoders = EncoderPair(load_encoder(spec.retriever.encoder))
    settings = corpus_settings(spec.corpus, encoders, folder=folder / INDEX, generator=spec.model.path)
    made = sha256_json([workload.corpus_sha256, settings.encoder_sha256, spec.corpus.model_dump(exclude={"sources"})])
    place = folder / f"{INDEX}-{made[:12]}"
    index = build_index(place, workload.corpus.documents, encoders, settings)
    target = open_target(str(base.folder))
    shared = Untrained(index=index, encoders=encoders)
    frozen = RagSystem(
        index=index,
        encoders=encoders,
        generator=target,
        mode="dense",
        passages=spec.reader.passages,
        max_new_tokens=spec.answer.max_new_tokens,
    )
    plan = choose_plan(spec, workload, frozen, spec.budget, folder)
    drawn = workload.drawn(plan.train, plan.test)
    drawn.write(folder / "workload")
    write_lessons(folder / "workload", drawn, frozen.prompts, index)
    ground = (base.sha256, encoders.sha256, drawn.sha256)
    trainer = Trainer(spec=spec, workload=drawn, folder=folder, ground=ground, index=place)
    return _State(
        spec=spec,
        workload=drawn,
        folder=folder,
        ground=ground,
        shared=shared,
        base=target,
        trainer=trainer,
        plan=plan,
    )


def _run_arm(state: _State, arm: Arm) -> None:
    arm, run = state.trainer.train(arm)
    spec = state.spec
    key = sha256_json(
        [
            *state.ground, state.workload.test_sha256, None if run is None else run.name, arm.system.retrieval,
            arm.system.passages or spec.reader.passages, spec.answer.max_new_tokens, spec.answer.hops,
            state.shared.index.folder.name,
        ]
    )[:12]  # fmt: skip
    stored = state.folder / ANSWERS / f"{arm.name}-{arm.seed}-{key}.json"
    if not stored.is_file():
        log.info("%s: %d questions", arm.name, len(state.workload.test))
        target = _target(state, run)
        cache = stored.with_suffix(".jsonl")
        evaluation = ask_all(spec, arm, target, state.workload.test, state.shared, run, cache)
        answers = [asdict(outcome.measured) for outcome in evaluation.outcomes]
        write_json(stored, {"settings": evaluation.settings, "answers": answers})
        cache.unlink()
    state.done.setdefault(arm.name, []).append(_read(stored, state.workload))
    state.costs.setdefault(arm.name, []).append(NOTHING if run is None else read_cost(run))


def _target(state: _State, run: Path | None) -> Target:
    """The generator of a trained system, or the base."""
    if run is None:
        return state.base
    if not (run / INDEX).is_dir():
        return open_target(str(run))
    named = beside(run / INDEX, read_settings(run / INDEX).generator)
    return state.base if named == state.spec.model.path else open_target(named)


def _read(stored: Path, workload: Workload) -> Evaluation:
    values = json.loads(stored.read_text(encoding="utf-8"))
    pairs = list(zip(workload.test, map(measured_from, values["answers"]), strict=True))
    return Evaluation(outcomes=outcomes_of(pairs, None), threshold=None, settings=values["settings"])


def _write(state: _State) -> dict[str, Any]:
    standings = {
        name: Standing(name=name, evaluations=tuple(state.done[name]))
        for name in state.spec.systems
        if name in state.done
    }
    known = [one for one in state.spec.contrasts() if {one.a, one.b} <= set(standings)]
    document = comparison_document(
        Measured(
            spec=state.spec,
            workload=state.workload,
            plan=state.plan,
            parameters=sum(value.numel() for value in state.base.model.parameters()),
            passages=state.shared.index.passages,
            standings=standings,
            costs=state.costs,
            contrasts=contrasts_of(standings, known),
            waiting=state.waiting,
        )
    )
    write_json(state.folder / COMPARISON, document)
    write_comparison_page(state.folder / PAGE, document)
    return document
