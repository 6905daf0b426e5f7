"""The stages of training after the reader: the retriever from the reader, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.pipeline.session import Session
from ftkit.rag.building import build_index, corpus_settings
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.index import Index
from ftkit.rag.learning import Pace, learn, learning_pair, store_pair
from ftkit.rag.mining import mine
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.raft import refusals
from ftkit.rag.reader import ReaderPrompts
from ftkit.rag.readings import Scorer, rag_examples, with_likelihoods
from ftkit.rag.training import RagExamples, RagModel, RagObjective
from ftkit.recipe import RagRecipe


@dataclass(frozen=True, kw_only=True)
class Course:
    """What all stages share.

    Attributes:
        recipe: Resolved.
        folder: Of the run.
        session: Of the generator.
        prompts: Of the generator.
        documents: The corpus.
        train: Questions to learn from.
        held: Questions held back.
        known: Indexes from which vectors may be taken.
    """

    recipe: RagRecipe
    folder: Path
    session: Session
    prompts: ReaderPrompts
    documents: Sequence[Document]
    train: Sequence[AskedQuestion]
    held: Sequence[AskedQuestion]
    known: Sequence[Path] = ()

    def index(self, name: str, encoders: EncoderPair) -> Index:
        """An index of the corpus by these encoders."""
        folder = self.folder / name
        generator = self.recipe.model.path
        settings = corpus_settings(self.recipe.corpus, encoders, folder=folder, generator=generator)
        known = [*self.folder.glob("index-*"), *self.known]
        return build_index(folder, self.documents, encoders, settings, known=known)

    def examples(
        self, index: Index, encoders: EncoderPair, *, candidates: int, null: bool, reads: bool
    ) -> tuple[RagExamples, RagExamples]:
        """Training and held-back questions with their candidates by this index.

        Args:
            index: By the encoders.
            encoders: As they are.
            candidates: Passages of each question.
            null: Whether answering without a passage is a candidate too.
            reads: Whether the reader learns from them: then it is also shown what it must refuse.
        """
        retriever = self.recipe.retriever
        made = []
        for questions in (self.train, [asked for asked in self.held if asked.answers]):
            if not questions:
                made.append(RagExamples())
                continue
            mined = mine(index, encoders, questions, dense=retriever.candidates, lexical=retriever.lexical_candidates)
            share = self.recipe.reader.without_gold
            refused = refusals(mined, without_gold=share, seed=self.recipe.train.seed) if reads and not made else []
            made.append(
                rag_examples(
                    mined,
                    self.session,
                    self.prompts,
                    candidates=candidates,
                    max_length=self.recipe.data.max_length,
                    null=null,
                    refused=refused,
                )
            )
        return made[0], made[1]

    def pace(self, *, encoders_alone: bool, epochs: float) -> Pace:
        """How fast what learns."""
        rate, own = self.recipe.train.learning_rate, self.recipe.retriever.learning_rate
        assert rate is not None, "resolved recipes have one"
        return Pace(
            learning_rate=own if encoders_alone else rate,
            encoder_rate=own,
            epochs=epochs,
            train=self.recipe.train,
            compute=self.session.precision.compute,
        )


def train_retriever(
    course: Course, index: Index, encoders: EncoderPair, generator: nn.Module
) -> tuple[EncoderPair, dict[str, Any]]:
    """Distil what the reader finds useful into the encoders; the reader stands still.

    Returns:
        The encoders, read back from disk, and what was measured.
    """
    which = "query" if course.recipe.retriever.train == "auto" else course.recipe.retriever.train
    folder = course.folder / "retriever"
    rows, held = course.examples(index, encoders, candidates=course.recipe.retriever.scored, null=False, reads=False)
    scorer = Scorer(generator, course.session.precision.compute, folder / "judged.jsonl")
    rows, held = with_likelihoods(rows, scorer), with_likelihoods(held, scorer)
    live = learning_pair(encoders, which)
    model = RagModel(live, None, temperature=course.recipe.retriever.temperature, null_score=None)
    objective = _objective(course, likelihood=0.0, distillation=1.0)
    pace = course.pace(encoders_alone=True, epochs=course.recipe.retriever.epochs)
    facts = learn(folder, model, rows, held, pace, objective) | {"judging_flops": scorer.flops(rows)}
    return store_pair(folder / "encoders", live, encoders, which), facts


def train_jointly(
    course: Course, encoders: EncoderPair, generator: nn.Module
) -> tuple[EncoderPair, list[dict[str, Any]]]:
    """Both on the likelihood of the answers, round after round, each with an index by the encoders as they are.

    Args:
        course: What all stages share.
        encoders: As they are.
        generator: With its method attached and trained; changed in place.

    Returns:
        The encoders, read back from disk, and what was measured in each stretch.
    """
    joint, facts = course.recipe.joint, []
    which = "both" if course.recipe.retriever.train == "auto" else course.recipe.retriever.train
    form = joint.form
    if form == "auto":
        form = "simultaneous" if course.session.device.type == "cuda" else "alternating"
    for number in range(1, joint.rounds + 1):
        folder = course.folder / "joint" / f"round-{number}"
        index = course.index(f"index-{number}", encoders)
        with index:
            rows, held = course.examples(
                index, encoders, candidates=joint.passages, null=joint.null_passage, reads=True
            )
        live = learning_pair(encoders, which)
        null = _null_score(encoders, rows.choosing) if joint.null_passage else None
        if form == "simultaneous":
            model = RagModel(live, generator, temperature=course.recipe.retriever.temperature, null_score=null)
            objective = _objective(course, likelihood=1.0, distillation=joint.distillation)
            facts.append(learn(folder, model, rows, held, course.pace(encoders_alone=False, epochs=1), objective))
        else:
            facts += _alternate(course, folder, live, generator, rows, held, null)
        encoders = store_pair(folder / "encoders", live, encoders, which) if which != "none" else encoders
    return encoders, facts


def _alternate(
    course: Course,
    folder: Path,
    live: EncoderPair,
    generator: nn.Module,
    rows: RagExamples,
    held: RagExamples,
    null: float | None,
) -> list[dict[str, Any]]:
    """The reader judges; the encoders learn from what it said, then the reader by what they expect of it."""
    joint = course.recipe.joint
    temperature = course.recipe.retriever.temperature
    scorer = Scorer(generator, course.session.precision.compute, folder / "judged.jsonl")
    judging = scorer.flops(rows)
    rows, held = with_likelihoods(rows, scorer), with_likelihoods(held, scorer)
    facts = []
    alone = RagModel(live, None, temperature=temperature, null_score=null)
    if any(value.requires_grad for value in alone.parameters()):
        objective = _objective(course, likelihood=1.0, distillation=joint.distillation)
        pace = course.pace(encoders_alone=True, epochs=1)
        facts.append(learn(folder / "retriever", alone, rows.choosing, held, pace, objective))
    learnt = None if alone.null_score is None else float(alone.null_score.detach())
    still = EncoderPair(live.query, live.document)
    model = RagModel(still, generator, temperature=temperature, null_score=learnt)
    learning = [value for name, value in model.named_parameters() if not name.startswith("generator.")]
    before = [value.requires_grad for value in learning]
    for value in learning:
        value.requires_grad_(False)
    objective = _objective(course, likelihood=1.0, distillation=0.0, reader_only=True)
    facts.append(learn(folder / "reader", model, rows, held, course.pace(encoders_alone=False, epochs=1), objective))
    facts[-1]["judging_flops"] = judging
    for value, learns in zip(learning, before, strict=True):
        value.requires_grad_(learns)
    return facts


def _objective(course: Course, *, likelihood: float, distillation: float, reader_only: bool = False) -> RagObjective:
    return RagObjective(
        course.session.precision.compute,
        likelihood=likelihood,
        distillation=distillation,
        reader_temperature=course.recipe.retriever.reader_temperature,
        reader_only=reader_only,
    )


@torch.no_grad()
def _null_score(encoders: EncoderPair, rows: RagExamples) -> float:
    """Where answering without a passage begins: as good as the least good candidates, on average."""
    contents = list(dict.fromkeys(one.content for row in rows for one in row.candidates if one.content is not None))
    places = {content: number for number, content in enumerate(contents)}
    documents = encoders.document.vectors(contents, "document")
    queries = encoders.query.vectors([row.question for row in rows], "query")
    least = [
        min(float(query @ documents[places[one.content]]) for one in row.candidates if one.content is not None)
        for query, row in zip(queries, rows, strict=True)
    ]
    return sum(least) / len(least)
