"""Everything that can be known of a comparison before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.compare.arms import Arm, arms_of, rag_recipe
from ftkit.compare.routing import require_held
from ftkit.compare.updating import draw_fact_edits
from ftkit.compare.variants import variants_of
from ftkit.compare.workload import Workload, read_workload
from ftkit.errors import DataError
from ftkit.evaluate.general import read_general
from ftkit.pipeline.estimate import Estimate
from ftkit.pipeline.session import Session
from ftkit.rag.audit import Faults, Passages, audit, audit_warnings, too_long
from ftkit.rag.checking import (
    check_needs,
    corpus_facts,
    encoder_facts,
    length_warnings,
    memory_warnings,
    model_facts,
    output_warnings,
    reading_facts,
)
from ftkit.rag.encoder import Encoder, load_encoder
from ftkit.rag.ground import Ground, bound_readings, cut_for, open_reader
from ftkit.recipe import CompareSpec, RagRecipe


def check_compare(spec: CompareSpec) -> dict[str, Any]:
    """Check models, documents, questions, lengths and memory of a comparison; nothing is trained or written.

    Returns:
        ``model``, ``encoder``, ``corpus``, ``questions`` (train, validation, test), ``systems`` with what each
        trains, ``tests`` (what is settled), ``readings`` and ``estimate`` of the system with passages that takes
        most memory in training (None where none is trained), and ``warnings``.

    Raises:
        FtkitError: Of the kind of the first part that fails, listing the faults of all parts.
    """
    spec = spec.resolved()
    faults = Faults()
    trained = _recipes(spec)
    plain = _recipe(spec, Arm(name="", system=next(iter(spec.systems.values())), seed=spec.seeds[0]))
    sessions = [faults.of(lambda one=one: open_reader(one)) for one in (trained or [plain])]  # type: ignore[misc]
    encoder = faults.of(lambda: load_encoder(spec.retriever.encoder))
    workload = faults.of(lambda: read_workload(spec))
    passages = None
    if workload is not None and encoder is not None:
        passages = faults.of(lambda: cut_for(spec.corpus, workload.corpus, encoder))
        long = too_long([*workload.train, *workload.held, *workload.test], encoder)
        if long:
            faults.add(DataError(long))
        faults.of(lambda: require_held(spec, workload))
        faults.of(lambda: variants_of(spec.measure, workload))
        if spec.measure.updates:
            faults.of(lambda: draw_fact_edits(workload, max(spec.measure.updates)))
    if (files := spec.measure.general) is not None:
        faults.of(lambda: read_general(files, most=spec.measure.general_rows))
    grounds: list[Ground | None] = []
    if workload is not None and encoder is not None and passages is not None:
        for recipe, session in zip(trained, sessions, strict=False):
            if session is not None:
                grounds.append(faults.of(lambda r=recipe, s=session: _ground(r, s, encoder, workload, passages)))  # type: ignore[misc]
    faults.raise_any()
    session = sessions[0]
    assert session and encoder and workload and passages, "what is missing was raised"
    measured = [(one, check_needs(recipe, one)) for recipe, one in zip(trained, grounds, strict=True) if one]
    return _found(spec, session, encoder, workload, passages, measured)


def _found(
    spec: CompareSpec,
    session: Session,
    encoder: Encoder,
    workload: Workload,
    passages: Passages,
    measured: list[tuple[Ground, Estimate]],
) -> dict[str, Any]:
    given = max(system.passages or spec.reader.passages for system in spec.systems.values())
    sides = {
        name: audit(asked, passages, given=given)
        for name, asked in (("train", workload.train), ("validation", workload.held), ("test", workload.test))
    }
    warnings = [line for name, side in sides.items() for line in audit_warnings(name, side, passages)]
    ground, needs = max(measured, key=lambda one: one[1].memory, default=(None, None))
    if ground is not None and needs is not None:
        warnings += length_warnings(ground.bounds, spec.data.max_length) + memory_warnings(needs)
    arms = arms_of(spec)
    return {
        "recipe": spec.model_dump(mode="json"),
        "model": model_facts(session),
        "encoder": encoder_facts(encoder),
        "device": str(session.device),
        "compute": str(session.precision.compute).removeprefix("torch."),
        "corpus": corpus_facts(workload.corpus, passages, session),
        "questions": {name: side.to_dict() for name, side in sides.items()},
        "systems": [
            {
                "name": name,
                "retrieval": system.retrieval,
                "stages": list(system.stages),
                "learns": list(system.learns),
                "generator": (system.generator or spec.generator).recipe,
                "seeds": [arm.seed for arm in arms if arm.name == name and not arm.variant],
                "variants": [arm.variant for arm in arms if arm.name == name and arm.variant],
            }
            for name, system in spec.systems.items()
        ],
        "tests": [one.model_dump(mode="json") for one in spec.contrasts()],
        "claims": [one.model_dump(mode="json") for one in spec.claims],
        "readings": None if ground is None else reading_facts(ground.bounds, spec.data.max_length),
        "estimate": None if needs is None else needs.to_dict(),
        "warnings": warnings + output_warnings(Path(spec.output or ""), goes_on="spec.yaml"),
    }


def _recipes(spec: CompareSpec) -> list[RagRecipe]:
    """Of each training of a system with passages, but for its seed, one recipe."""
    found: dict[str, RagRecipe] = {}
    for name, system in spec.systems.items():
        if system.stages:
            recipe = _recipe(spec, Arm(name=name, system=system, seed=spec.seeds[0]))
            found.setdefault(recipe.model_dump_json(), recipe)
    return list(found.values())


def _recipe(spec: CompareSpec, arm: Arm) -> RagRecipe:
    system = arm.system if arm.system.stages else arm.system.model_copy(update={"stages": ("reader",)})
    arm = Arm(name=arm.name, system=system, seed=arm.seed)
    return rag_recipe(spec, arm, Path(spec.output or ""), (), validates=False)


def _ground(recipe: RagRecipe, session: Session, encoder: Encoder, workload: Workload, passages: Passages) -> Ground:
    train, held = (audit(side, passages, given=recipe.reader.passages) for side in (workload.train, workload.held))
    return Ground(
        session=session,
        encoder=encoder,
        corpus=workload.corpus,
        passages=passages,
        train=train,
        held=held,
        bounds=bound_readings(recipe, session, passages, train, held),
    )
