"""A comparison, open: models, index, questions, and what trains its systems."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ftkit.compare.arms import Arm, data_folder
from ftkit.compare.from_answers import PassageTexts
from ftkit.compare.general import Elsewhere
from ftkit.compare.plan import Plan, choose_plan
from ftkit.compare.routing import require_held
from ftkit.compare.seat import Seat, Untrained, seat_of
from ftkit.compare.style import Manner, manner_of
from ftkit.compare.training import Trainer, write_lessons
from ftkit.compare.updating import FactEdit, draw_fact_edits
from ftkit.compare.variants import Variant, variants_of
from ftkit.compare.workload import Workload
from ftkit.evaluate.general import General, read_general
from ftkit.files import sha256_json, write_json
from ftkit.models.find import find_base
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import RagSystem
from ftkit.rag.building import build_index, corpus_settings
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.ground import cut_for
from ftkit.rag.index import Index
from ftkit.rag.opening import beside
from ftkit.rag.run import INDEX
from ftkit.rag.settings import IndexSettings, read_settings
from ftkit.recipe import CompareSpec, SystemSection
from ftkit.train.work import matrices_of

ANSWERS = "answers"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What one call holds open.

    Attributes:
        spec: Resolved.
        workload: As drawn.
        folder: Of the comparison.
        ground: Digests of base model, encoder and training questions, which decide every result.
        shared: Index and encoders as they come.
        base: The model as it comes.
        base_folder: Where it stands.
        plan: How much was drawn.
        variants: Of the training questions, by name; the comparison's own under an empty one.
        edits: Of documents, as many as the largest number of measure.updates.
        general: What forgetting is measured on; None for nothing.
    """

    spec: CompareSpec
    workload: Workload
    folder: Path
    ground: tuple[str, ...]
    shared: Untrained
    base: Target
    base_folder: Path
    plan: Plan
    variants: Mapping[str, Variant]
    edits: tuple[FactEdit, ...]
    general: General | None

    @cached_property
    def held_sha256(self) -> str:
        """Of the questions that combinations are chosen by."""
        return sha256_json([[one.id, one.question, one.answers] for one in self.workload.held])

    @cached_property
    def texts(self) -> PassageTexts:
        """Of the index that all share; that of a trained retriever has the same passages."""
        return PassageTexts(self.shared.index)

    @cached_property
    def index_flops(self) -> float:
        """Of embedding every passage once."""
        encoder = self.shared.encoders.document
        contents = {one.content for one in self.shared.index.all_passages()}
        return matrices_of(encoder.module).forward(sum(map(encoder.count, contents)))

    @cached_property
    def flops_a_token(self) -> float:
        """Of the base, forward; what is tuned adds little."""
        return matrices_of(self.base.model).forward(1)

    @cached_property
    def elsewhere(self) -> Elsewhere | None:
        """What measures forgetting."""
        if self.general is None:
            return None
        measured = sha256_json([self.ground[0], self.general.sha256])[:12]
        return Elsewhere(general=self.general, base=self.base, kept=self.folder / f"general-{measured}.safetensors")

    @cached_property
    def manner(self) -> Manner | None:
        """What judges the form of answers."""
        count = self.spec.measure.style
        if not count:
            return None
        bare, given = (
            self.seat(Arm(name="untuned", system=SystemSection(retrieval=retrieval), seed=0), None)
            for retrieval in ("none", "dense")
        )
        answering = self.spec.answer
        return manner_of(
            bare, given, self.workload.train, count=count, folder=self.folder / ANSWERS,
            ground=[*self.ground, self.shared.index.folder.name, self.spec.reader.passages, answering.max_new_tokens],
        )  # fmt: skip

    @cached_property
    def trainer(self) -> Trainer:
        """Of the comparison's own questions."""
        return Trainer(
            spec=self.spec, workload=self.workload, folder=self.folder, ground=self.ground,
            index=self.shared.index.folder,
        )  # fmt: skip

    @cached_property
    def frozen(self) -> RagSystem:
        """Everything as it comes."""
        return frozen_system(self.spec, self.shared, self.base)

    def trainer_of(self, variant: Variant) -> Trainer:
        """Of other questions or documents; they are written where it trains from."""
        if not variant.name:
            return self.trainer
        contents = [one.content for one in self.shared.index.all_passages()]
        if variant.workload.corpus is not self.workload.corpus:
            cut = cut_for(self.spec.corpus, variant.workload.corpus, self.shared.encoders.document)
            contents = [content for some in cut.of.values() for content in some]
        place = self.folder / data_folder(variant.name)
        variant.workload.write(place)
        write_lessons(place, variant.workload, self.frozen.prompts, contents)
        ground = (*self.ground[:2], variant.workload.sha256)
        return replace(self.trainer, workload=variant.workload, ground=ground, own=self.trainer)

    def seat(self, arm: Arm, run: Path | None) -> Seat:
        """A system, trained, ready to be asked."""
        return seat_of(self.spec, arm, self._target(run), self.shared, run)

    def _target(self, run: Path | None) -> Target:
        """The generator of a trained system, or the base."""
        if run is None:
            return self.base
        if not (run / INDEX).is_dir():
            return open_target(str(run))
        named = beside(run / INDEX, read_settings(run / INDEX).generator)
        return self.base if named == self.spec.model.path else open_target(named)


def frozen_system(spec: CompareSpec, shared: Untrained, base: Target) -> RagSystem:
    """Index, encoders and model as they come."""
    return RagSystem(
        index=shared.index,
        encoders=shared.encoders,
        generator=base,
        mode="dense",
        passages=spec.reader.passages,
        max_new_tokens=spec.answer.max_new_tokens,
    )


def open_comparison(spec: CompareSpec, workload: Workload, folder: Path) -> Opened:
    """Open models, make or open the index, draw the questions, and write them.

    Args:
        spec: Resolved.
        workload: All of it.
        folder: Of the comparison; locked.

    Raises:
        DataError: What is to be measured cannot be, on these questions and documents.
    """
    require_held(spec, workload)
    measure = spec.measure
    general = None if measure.general is None else read_general(measure.general, most=measure.general_rows)
    edits = draw_fact_edits(workload, max(measure.updates)) if measure.updates else []
    base = find_base(spec.model.path, spec.model.revision)
    encoders = EncoderPair(load_encoder(spec.retriever.encoder))
    settings = corpus_settings(spec.corpus, encoders, folder=folder / INDEX, generator=spec.model.path)
    made = sha256_json([workload.corpus_sha256, settings.encoder_sha256, spec.corpus.model_dump(exclude={"sources"})])
    index = timed_index(folder / f"{INDEX}-{made[:12]}", workload, encoders, settings)
    shared = Untrained(index=index, encoders=encoders)
    target = open_target(str(base.folder))
    frozen = frozen_system(spec, shared, target)
    plan = choose_plan(spec, workload, frozen, spec.budget, folder)
    drawn = workload.drawn(plan.train, plan.test)
    drawn.write(folder / data_folder(""))
    contents = [one.content for one in index.all_passages()]
    write_lessons(folder / data_folder(""), drawn, frozen.prompts, contents)
    return Opened(
        spec=spec,
        workload=drawn,
        folder=folder,
        ground=(base.sha256, encoders.sha256, drawn.sha256),
        shared=shared,
        base=target,
        base_folder=base.folder,
        plan=plan,
        variants=variants_of(measure, drawn),
        edits=tuple(edits),
        general=general,
    )


def timed_index(place: Path, workload: Workload, encoders: EncoderPair, settings: IndexSettings) -> Index:
    """The index, and beside it how long it took to make, where it was made in one go."""
    is_new, started = not place.exists(), time.perf_counter()
    index = build_index(place, workload.corpus.documents, encoders, settings)
    if is_new:
        write_json(took_file(place), {"seconds": time.perf_counter() - started})
    return index


def took_file(index: Path) -> Path:
    """Where the seconds of making an index are kept."""
    return index.with_suffix(".json")
