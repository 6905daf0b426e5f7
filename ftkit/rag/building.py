"""An index for a training run: made with its encoders as they are at one moment, or taken from where it was made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftkit.errors import OutputError
from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.index import Index, create_index
from ftkit.rag.settings import SETTINGS, IndexSettings, read_settings, write_settings
from ftkit.recipe.rag import CorpusSection

PASSAGE_TOKENS = 160


def corpus_settings(corpus: CorpusSection, encoders: EncoderPair, *, folder: Path, generator: str) -> IndexSettings:
    """What an index of a corpus is made with.

    Args:
        corpus: Of the recipe.
        encoders: As they are.
        folder: Of the index; encoders within the same run are named from there, so that the run can be moved.
        generator: That answers.
    """
    most = encoders.document.max_tokens
    own = encoders.query is not encoders.document
    return IndexSettings(
        encoder=named_from(folder, encoders.document.found.name),
        query_encoder=named_from(folder, encoders.query.found.name) if own else None,
        encoder_sha256=encoders.sha256,
        width=encoders.width,
        passage_tokens=min(corpus.passage_tokens or PASSAGE_TOKENS, most),
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


def build_index(folder: Path, documents: Sequence[Document], encoders: EncoderPair, settings: IndexSettings) -> Index:
    """Make an index of these documents, or finish one that was begun with the same encoders.

    Raises:
        OutputError: Another index stands there.
    """
    if not (folder / SETTINGS).is_file():
        index = create_index(folder, settings)
    else:
        if replace(read_settings(folder), generator="") != replace(settings, generator=""):
            raise OutputError(f"{folder}: holds an index made otherwise", fix="Delete it, or use another output.")
        index = Index(folder)
    index.add(documents, encoders)
    return index


def name_generator(folder: Path, generator: str) -> None:
    """Let an index be answered by another generator."""
    write_settings(folder, replace(read_settings(folder), generator=generator))
