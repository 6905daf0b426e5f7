"""From an index folder to everything that is needed to write to it or to ask it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.errors import DataError
from ftkit.export.base import BASE_FOLDER
from ftkit.models.find import fetch_from_hub
from ftkit.models.find_encoder import find_encoder
from ftkit.models.known import KNOWN_MODELS
from ftkit.notices import log
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import RagSystem
from ftkit.rag.corpus import read_documents
from ftkit.rag.encoder import Encoder, EncoderPair
from ftkit.rag.exported import INDEX, export_of_index, is_rag_export, require_own_parts
from ftkit.rag.growth import Change
from ftkit.rag.index import Index, create_index
from ftkit.rag.lexical import Words
from ftkit.rag.likelihood import gives_likelihoods
from ftkit.rag.passage import Hit
from ftkit.rag.reranker import Reranker, load_reranker
from ftkit.rag.settings import SETTINGS, IndexSettings, Mode, read_defaults, read_settings
from ftkit.rag.threshold import Conditions, generator_sha256, read_threshold

ENCODER = "all-minilm-l6-v2"
GENERATOR = "smollm2-135m"
PASSAGE_TOKENS = 160
NO_RERANKER = "none"


def open_encoders(folder: Path) -> EncoderPair:
    """Load the encoders that an index names; those of a training run stand beside it.

    Raises:
        DataError: What stands under those names now is another encoder than made the index.
        ModelError: They are not here.
    """
    settings = read_settings(folder)
    # An index may come from anybody: what it names is looked for here, and not fetched from where it says.
    document = Encoder(find_encoder(beside(folder, settings.encoder), cached_only=True))
    named = settings.query_encoder
    query = None if named is None else Encoder(find_encoder(beside(folder, named), cached_only=True))
    pair = EncoderPair(query or document, document)
    if pair.sha256 != settings.encoder_sha256:
        raise DataError(
            f"{settings.encoder} is another encoder ({pair.sha256[:12]}…) than made this index "
            f"({settings.encoder_sha256[:12]}…)",
            fix="Put back the encoder that made it, or build the index again.",
        )
    return pair


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """How the first hits are ordered anew, where somebody asks for it.

    Attributes:
        reranker: A hub id or a folder, which is fetched if need be; `NO_RERANKER` for none; None for what the index
            names, which is only looked for on this machine, as its encoder is.
        reranked: How many hits it orders; None for what the index says.
    """

    reranker: str | None = None
    reranked: int | None = None


def open_reranker(folder: Path, asked: Reranking | None = None) -> tuple[Reranker | None, int]:
    """What orders the first hits of an index's searches anew, and how many of them.

    Args:
        folder: Of the index.
        asked: In place of what the index says.

    Raises:
        ModelError: It is not here, or cannot be used.
    """
    usual, asked = read_defaults(folder), asked or Reranking()
    count = usual.reranked if asked.reranked is None else asked.reranked
    if asked.reranker is not None:
        return None if asked.reranker == NO_RERANKER else load_reranker(asked.reranker), count
    if usual.reranker is None:
        return None, count
    return load_reranker(beside(folder, usual.reranker), cached_only=True), count


def open_or_create(
    folder: str | Path,
    *,
    encoder: str | None = None,
    generator: str | None = None,
    passage_tokens: int | None = None,
    overlap_tokens: int | None = None,
    words: Words | None = None,
) -> tuple[Index, EncoderPair]:
    """An index to write to: the one that stands there, or a new one.

    Args:
        folder: Of the index.
        encoder: Known name, hub id or folder; None for the index's own, or the small known one.
        generator: That answers unless another is asked for.
        passage_tokens: Longest passage, in the encoder's tokens.
        overlap_tokens: What a passage repeats of the one before it.
        words: How the lexical index cuts text.

    Raises:
        DataError: The index there was made otherwise.
    """
    path = Path(folder)
    encoder = _placed(encoder)
    generator = _placed(generator)
    asked = {
        "encoder": encoder,
        "generator": generator,
        "passage_tokens": passage_tokens,
        "overlap_tokens": overlap_tokens,
        "words": words,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    if (path / SETTINGS).is_file():
        settings = read_settings(path)
        differing = [key for key, value in given.items() if getattr(settings, key) != value]
        if differing:
            named = ", ".join(f"{key} {getattr(settings, key)!r}, not {given[key]!r}" for key in differing)
            raise DataError(f"{path}: was made with {named}", fix="Leave these options out, or build another index.")
        return Index(path), open_encoders(path)
    found = Encoder(find_encoder(encoder or ENCODER))
    pair = EncoderPair(found)
    limit = passage_tokens or min(PASSAGE_TOKENS, found.max_tokens)
    if limit > found.max_tokens:
        raise DataError(
            f"passages of {limit} tokens; {found.found.portable_name} reads {found.max_tokens}",
            fix=f"Use --passage-tokens {found.max_tokens} or fewer: what is cut off can never be found.",
        )
    settings = IndexSettings(
        encoder=encoder or ENCODER,
        encoder_sha256=pair.sha256,
        width=pair.width,
        passage_tokens=limit,
        overlap_tokens=overlap_tokens or 0,
        words=words or "stems",
        generator=generator or GENERATOR,
    )
    return create_index(path, settings), pair


def index_documents(
    sources: Sequence[str | Path],
    folder: str | Path,
    *,
    encoder: str | None = None,
    generator: str | None = None,
    passage_tokens: int | None = None,
    words: Words | None = None,
) -> Change:
    """Build or extend an index from files and folders; `open_system` then asks it.

    Args:
        sources: Text, Markdown, HTML, PDF, CSV, JSON lines, or folders of them.
        folder: Of the index.
        encoder: See `open_or_create`, as for the others.
        generator: That answers unless another is asked for.
        passage_tokens: Longest passage, in the encoder's tokens.
        words: How the lexical index cuts text.

    Raises:
        DataError: Naming every document that cannot be read; nothing is made then.
    """
    corpus = read_documents(sources)
    index, encoders = open_or_create(
        folder, encoder=encoder, generator=generator, passage_tokens=passage_tokens, words=words
    )
    with index:
        return index.add(corpus.documents, encoders)


def beside(folder: Path, name: str) -> str:
    """What an index names: a path as seen from it where there is such a folder, else the name itself."""
    return str((folder / name).resolve()) if not Path(name).is_absolute() and (folder / name).is_dir() else name


def index_folder(place: str | Path) -> Path:
    """The index of a RAG run or of an export, or the folder itself.

    Raises:
        DataError: The run has none yet.
        VerificationError: The export's index names what is no part of it.
    """
    path = Path(place)
    if is_rag_export(path):
        require_own_parts(path)
        return path / INDEX
    if not (path / "rag.json").is_file():
        return path
    if not (path / INDEX / SETTINGS).is_file():
        raise DataError(f"{path}: is a run that has no index yet", fix=f"Finish it with: ftkit resume {path}")
    return path / INDEX


def is_rag_place(place: str | Path) -> bool:
    """Whether a folder is an index, a RAG run, or the export of either."""
    path = Path(place)
    return (path / SETTINGS).is_file() or (path / "rag.json").is_file() or is_rag_export(path)


def _open_generator(folder: Path, name: str) -> Target:
    """The index's own. In an export an adapter's base stands beside it, and no other is looked for."""
    place = generator_of(folder, name)
    beside_it = Path(place).parent / BASE_FOLDER
    needs_base = export_of_index(folder) is not None and (Path(place) / "adapter_config.json").is_file()
    return open_target(place, base=beside_it if needs_base else None)


def generator_of(folder: Path, name: str) -> str:
    """What an index names, if it is on this machine."""
    found = beside(folder, name)
    is_hub_id = found not in KNOWN_MODELS and not os.path.isdir(found) and found.count("/") == 1  # noqa: PTH112
    return str(fetch_from_hub(found, None, cached_only=True)[0]) if is_hub_id else found


def _placed(name: str | None) -> str | None:
    """A folder by its whole path, so that the index can be asked from anywhere."""
    return str(Path(name).resolve()) if name is not None and os.path.isdir(name) else name  # noqa: PTH112


def open_system(
    folder: str | Path,
    *,
    generator: str | Target | None = None,
    mode: Mode | None = None,
    passages: int | None = None,
    max_new_tokens: int | None = None,
    hops: int | None = None,
    reranking: Reranking | None = None,
) -> RagSystem:
    """An index ready to be asked.

    Args:
        folder: Of the index, of a RAG run, or of an export of either.
        generator: A run, an export or a model, or one that is open already; None for the index's own.
        mode: How passages are searched for; None, as below, for what the index says.
        passages: How many the generator is given at most.
        max_new_tokens: Longest answer.
        hops: Searches for each question.
        reranking: How the first hits are ordered anew.
    """
    path = index_folder(folder)
    usual = read_defaults(path)
    reranker, reranked = open_reranker(path, reranking)
    index = Index(path)
    encoders = open_encoders(path)
    if not isinstance(generator, Target):
        generator = open_target(generator) if generator else _open_generator(path, index.settings.generator)
    system = RagSystem(
        index=index,
        encoders=encoders,
        generator=generator,
        mode=usual.mode if mode is None else mode,
        passages=usual.passages if passages is None else passages,
        max_new_tokens=usual.max_new_tokens if max_new_tokens is None else max_new_tokens,
        hops=usual.hops if hops is None else hops,
        reranker=reranker,
        reranked=reranked,
    )
    return replace(system, threshold=threshold_for(path, generator, system.conditions))


def search_index(
    folder: str | Path,
    question: str,
    *,
    count: int,
    mode: Mode = "hybrid",
    reranking: Reranking | None = None,
) -> list[Hit]:
    """The passages for a question, without a generator.

    Args:
        folder: See `open_system`.
        question: Not empty.
        count: Hits wanted.
        mode: How passages are searched for.
        reranking: How the first hits are ordered anew.

    Raises:
        DataError: The question is longer than encoder or reranker read.
    """
    path = index_folder(folder)
    reranker, reranked = open_reranker(path, reranking)
    wanted = count if reranker is None else max(count, reranked)
    with Index(path) as index:
        encoders = None if mode == "lexical" else open_encoders(path)
        found = index.search(question, encoders, count=wanted, mode=mode)
    return found if reranker is None else reranker.rerank(question, found, reranked)[:count]


def threshold_for(folder: Path, target: Target, conditions: Conditions) -> float | None:
    """The threshold that an index keeps, if it was chosen for this generator: another one's confidences say nothing.

    Args:
        folder: Of the index.
        target: The generator.
        conditions: How passages come to it.
    """
    stored = read_threshold(folder)
    if stored is None:
        return None
    if not gives_likelihoods(target) or stored.generator != generator_sha256(target):
        log.warning(
            "%s: its threshold was chosen for another generator and is not used; every answer is given. "
            "Choose one for this: ftkit rag eval %s --data FILE --set-threshold RISK", folder, folder,
        )  # fmt: skip
        return None
    if stored.conditions != conditions:
        log.warning("%s: its threshold was chosen with %s; here the risk may be another", folder, stored.conditions)
    return stored.threshold
