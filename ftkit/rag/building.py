"""An index for a training run: made with its encoders as they are at one moment, or taken from where it was made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftkit.errors import OutputError, RecipeError
from ftkit.files import new_folder
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.exported import PartNames
from ftkit.rag.index import Index, create_index
from ftkit.rag.settings import SETTINGS, AnsweringDefaults, IndexSettings, read_settings, write_settings
from ftkit.rag.snapshot import copy_index
from ftkit.recipe.rag import CorpusSection, RagRecipe

PASSAGE_TOKENS = 160


def corpus_settings(corpus: CorpusSection, encoders: EncoderPair, *, folder: Path, generator: str) -> IndexSettings:
    """What an index of a corpus is made with.

    Args:
        corpus: Of the recipe.
        encoders: As they are.
        folder: Of the index; encoders within the same run are named from there, so that the run can be moved.
        generator: That answers.

    Raises:
        RecipeError: Passages would repeat more than half of the one before.
    """
    most = encoders.document.max_tokens
    longest = min(corpus.passage_tokens or PASSAGE_TOKENS, most)
    if corpus.overlap_tokens > longest // 2:
        raise RecipeError(
            f"corpus.overlap_tokens: {corpus.overlap_tokens} is more than half of a passage of {longest} tokens",
            fix=f"Set it to {longest // 2} or less.",
        )
    own = encoders.query is not encoders.document
    return IndexSettings(
        encoder=named_from(folder, encoders.document.found.name),
        query_encoder=named_from(folder, encoders.query.found.name) if own else None,
        encoder_sha256=encoders.sha256,
        width=encoders.width,
        passage_tokens=longest,
        overlap_tokens=corpus.overlap_tokens,
        words=corpus.words,
        generator=generator,
    )


def named_from(folder: Path, name: str) -> str:
    """A path as seen from a folder where both are in one run; any other name as it is."""
    if not Path(name).is_absolute():
        return name
    run = folder.resolve().parent
    return os.path.relpath(name, folder.resolve()) if Path(name).resolve().is_relative_to(run) else name


def answering_defaults(recipe: RagRecipe, folder: Path) -> AnsweringDefaults:
    """How the index of a run is asked unless somebody asks otherwise.

    Args:
        recipe: Of the run.
        folder: Of the index.
    """
    answer = recipe.answer
    return AnsweringDefaults(
        mode=answer.mode,
        passages=recipe.reader.passages,
        max_new_tokens=answer.max_new_tokens,
        hops=answer.hops,
        reranker=None if answer.reranker is None else named_from(folder, answer.reranker),
        reranked=answer.reranked,
    )


def build_index(
    folder: Path,
    documents: Sequence[Document],
    encoders: EncoderPair,
    settings: IndexSettings,
    *,
    known: Sequence[Path] = (),
) -> Index:
    """Make an index of these documents, or finish one that was begun with the same encoders.

    Args:
        folder: Of the index.
        documents: All that are in it.
        encoders: That make it.
        settings: Of the index.
        known: Other indexes. Vectors are taken from the first of them that was made alike, and not computed again.

    Raises:
        OutputError: Another index stands there.
    """
    if not (folder / SETTINGS).is_file():
        alike = next((one for one in known if one != folder and _is_alike(one, settings)), None)
        index = create_index(folder, settings) if alike is None else _copy(alike, folder, settings)
    else:
        if replace(read_settings(folder), generator="") != replace(settings, generator=""):
            raise OutputError(f"{folder}: holds an index made otherwise", fix="Delete it, or use another output.")
        index = Index(folder)
    ids = {document.id for document in documents}
    if gone := [name for name in index.documents if name not in ids]:
        index.remove(gone)
    index.add(documents, encoders)
    return index


def _is_alike(folder: Path, settings: IndexSettings) -> bool:
    """Whether an index there has the passages and vectors that these settings make."""
    if not (folder / SETTINGS).is_file():
        return False
    named = {"encoder": "", "query_encoder": None, "generator": ""}  # the digest says which encoders they are
    return replace(read_settings(folder), **named) == replace(settings, **named)  # type: ignore[arg-type]


def _copy(source: Path, target: Path, settings: IndexSettings) -> Index:
    """The same index in another place."""
    names = PartNames(encoder=settings.encoder, query_encoder=settings.query_encoder, generator=settings.generator)
    with new_folder(target) as partial, Index(source) as index:
        copy_index(index, partial / "copy", names)
        for file in (partial / "copy").iterdir():
            file.rename(partial / file.name)
        (partial / "copy").rmdir()
    return Index(target)


def name_generator(folder: Path, generator: str) -> None:
    """Let an index be answered by another generator."""
    write_settings(folder, replace(read_settings(folder), generator=generator))
