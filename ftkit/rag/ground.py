"""What a RAG run stands on, found and read before anything is embedded or trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import DataError, FtkitError, Problem
from ftkit.pipeline.exporting import require_exports
from ftkit.pipeline.session import Session, open_session
from ftkit.rag.audit import Audit, Faults, Passages, audit, cut_corpus, too_long
from ftkit.rag.beginning import reader_recipe, run_corpus, run_questions
from ftkit.rag.building import corpus_settings
from ftkit.rag.corpus import Corpus
from ftkit.rag.encoder import Encoder, EncoderPair, load_encoder
from ftkit.rag.questions import AskedQuestion, read_questions
from ftkit.rag.reading_bounds import Bounds, Setting, reading_bounds
from ftkit.recipe import RagRecipe
from ftkit.recipe.rag import CorpusSection


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a RAG run stands on, found and read.

    Attributes:
        session: Of the generator.
        encoder: As it comes.
        corpus: The documents.
        passages: What they are cut into.
        train: Questions to learn from.
        held: Questions held back.
        bounds: Of their readings.
    """

    session: Session
    encoder: Encoder
    corpus: Corpus
    passages: Passages
    train: Audit
    held: Audit
    bounds: Bounds


def cut_for(section: CorpusSection, corpus: Corpus, encoder: Encoder) -> Passages:
    """The corpus as an index by this encoder has it.

    Raises:
        RecipeError: It cannot be cut in this way.
    """
    settings = corpus_settings(section, EncoderPair(encoder), folder=Path("index"), generator="")
    return cut_corpus(corpus.documents, encoder, settings)


def read_ground(recipe: RagRecipe) -> Ground:
    """Find and read all parts.

    Raises:
        FtkitError: Of the kind of the first part that fails, listing the faults of all parts.
    """
    faults = Faults()
    session = faults.of(lambda: open_reader(recipe))
    encoder = faults.of(lambda: load_encoder(recipe.retriever.encoder))
    sides = faults.of(lambda: _questions(recipe))
    corpus = faults.of(lambda: run_corpus(recipe))
    passages = None
    if corpus is not None and encoder is not None:
        passages = faults.of(lambda: cut_for(recipe.corpus, corpus, encoder))
    if sides is not None and encoder is not None:
        long = too_long([*sides[0], *sides[1]], encoder)
        if long:
            faults.add(DataError(long))
    audits, bounds = None, None
    if sides is not None and passages is not None:
        train, held = (audit(side, passages, given=recipe.reader.passages) for side in sides)
        audits = (train, held)
        for error in _unteachable(recipe, train, held, passages):
            faults.add(error)
        if session is not None:
            bounds = faults.of(lambda: bound_readings(recipe, session, passages, train, held))
    faults.raise_any()
    assert session and encoder and corpus and passages and audits and bounds, "what is missing was raised"
    return Ground(
        session=session, encoder=encoder, corpus=corpus, passages=passages, train=audits[0], held=audits[1],
        bounds=bounds,
    )  # fmt: skip


def bound_readings(recipe: RagRecipe, session: Session, passages: Passages, train: Audit, held: Audit) -> Bounds:
    """Bound the readings of both sides.

    Raises:
        DataError: Naming each question whose readings are certainly longer than is allowed.
    """
    reads = "reader" in recipe.stages
    setting = Setting(
        given=recipe.reader.passages if reads else 1,
        candidates=recipe.retriever.candidates,
        without_gold=recipe.reader.without_gold if reads else 0.0,
        seed=recipe.train.seed,
        one_by_one=bool({"retriever", "joint"} & set(recipe.stages)),
        max_length=recipe.data.max_length,
    )
    found = reading_bounds(session, passages, train.teaching, held.teaching, setting)
    if found.must:
        raise DataError(found.must)
    return found


def open_reader(recipe: RagRecipe) -> Session:
    """The generator with its own recipe, and what its export needs; its rows are not made yet."""
    session = open_session(reader_recipe(recipe, Path(recipe.output or ""), validates=False))
    require_exports(session, session.recipe.export or ())
    return session


def _questions(recipe: RagRecipe) -> tuple[list[AskedQuestion], list[AskedQuestion]]:
    """Both files are read whatever the first says."""
    faults = Faults()
    for path in (recipe.data.train, recipe.data.validation):
        if isinstance(path, str):
            faults.of(lambda path=path: read_questions(path))  # type: ignore[misc]
    faults.raise_any()
    return run_questions(recipe)


def _unteachable(recipe: RagRecipe, train: Audit, held: Audit, passages: Passages) -> list[FtkitError]:
    """What training would refuse: a stage with nothing to learn from."""
    made, errors = recipe.data.synthetic is not None, []
    for name, side in (("train", train), ("validation", held)):
        if "reader" in recipe.stages and side.asked and not side.teaching and not (made and name == "train"):
            errors.append(
                Problem(
                    what=f"none of the {len(side.asked)} {name} questions can teach reading",
                    fix="Name the document of each question, or use answers that stand in the documents.",
                )
            )
    if {"retriever", "joint"} & set(recipe.stages):
        if not made and not train.answerable:
            errors.append(
                Problem(
                    what="no train question has an answer, so the search has nothing to learn from",
                    fix="Give questions with answers, or train the stage reader alone.",
                )
            )
        if len(passages.distinct) < 2:
            errors.append(
                Problem(what="the corpus makes one passage, so there is nothing to choose from", fix="Add documents.")
            )
    return [DataError(errors)] if errors else []
