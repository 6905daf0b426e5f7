"""What a RAG run begins with: its questions, its documents, and the generator's own recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftkit.errors import DataError
from ftkit.notices import log
from ftkit.rag.corpus import Corpus, read_documents
from ftkit.rag.questions import AskedQuestion, plain_words, read_questions, split_questions
from ftkit.recipe import RECIPES, RagRecipe, Recipe
from ftkit.recipe.sections import ExportKind


def run_questions(recipe: RagRecipe) -> tuple[list[AskedQuestion], list[AskedQuestion]]:
    """Training and held-back questions; no document is on both sides of a fraction."""
    asked = [] if recipe.data.train is None else read_questions(recipe.data.train)
    validation = recipe.data.validation
    if isinstance(validation, str):
        held = read_questions(validation)
        return asked, held
    if recipe.data.synthetic is not None:
        return asked, []  # held back are some of all, when those of the corpus are made
    train, held = split_questions(asked, validation or 0.0)
    if not train:
        raise DataError(f"{recipe.data.train}: no question is left to train on", fix="Lower data.validation.")
    return train, held


def leaked_questions(train: Sequence[AskedQuestion], held: Sequence[AskedQuestion]) -> list[AskedQuestion]:
    """Held-back questions that are trained on too, in the same words but for case and spaces."""
    seen = {plain_words(one.question) for one in train}
    return [one for one in held if plain_words(one.question) in seen]


def run_corpus(recipe: RagRecipe) -> Corpus:
    """Its documents; what cannot be read is an error, or is left out and named, as the recipe wants it."""
    corpus = read_documents(recipe.corpus.sources, on_fault="skip" if recipe.corpus.skip_unreadable else "error")
    for fault in corpus.faults:
        log.warning("skipped: %s", fault)
    if len(corpus.documents) < 2:
        raise DataError("a corpus of one document leaves nothing to choose from", fix="Add documents.")
    return corpus


def reader_recipe(recipe: RagRecipe, folder: Path, *, validates: bool) -> Recipe:
    """The generator's own recipe: an ordinary one, on rows that `reader_rows` makes."""
    kind = RECIPES[recipe.generator.recipe]
    kinds = recipe.generator.method.EXPORT_KINDS
    data = folder / "reader-data"
    return kind.model_validate(
        {
            "model": recipe.model.model_dump(),
            "data": {
                "train": str(data / "train.jsonl"),
                "validation": str(data / "validation.jsonl") if validates else None,
                "max_length": recipe.data.max_length,
                "near_duplicates": False,
            },
            "method": recipe.generator.method,
            "train": recipe.train,
            "evaluate": {
                "samples": recipe.answer.samples,
                "metrics": ("exact_match", "f1") if recipe.answer.samples else (),
                "max_examples": 50,
                "max_new_tokens": recipe.answer.max_new_tokens,
            },
            "export": ("adapter" if "adapter" in kinds else "merged",),
            "output": str(folder / "reader"),
        }
    ).resolved()


def generator_kind(reader: Recipe) -> ExportKind:
    """The kind of export that the generator is handed on as."""
    assert reader.export is not None, "it names one"
    return reader.export[0].kind
