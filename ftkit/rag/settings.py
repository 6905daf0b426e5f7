"""What an index is made with, as it stands in its index.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ftkit.errors import DataError
from ftkit.files import write_json
from ftkit.rag.lexical import TOKENIZERS, Words
from ftkit.rag.schema import FORMAT_VERSION

SETTINGS, DEFAULTS = "index.json", "defaults.json"
Mode = Literal["dense", "lexical", "hybrid"]
MODES = ("dense", "lexical", "hybrid")
HOPS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """What an index is made with. All but ``generator`` decides what is found, and stays as it is.

    Attributes:
        encoder: Known name, hub id or folder of the document encoder.
        query_encoder: Of questions, where it is another; None for the same.
        encoder_sha256: Digest of the pair (see `ftkit.rag.encoder.EncoderPair.sha256`).
        width: Numbers in a vector.
        passage_tokens: Longest passage, in the encoder's tokens.
        overlap_tokens: What a passage repeats of the one before it.
        words: How the lexical index cuts text.
        generator: The model that answers, unless another is asked for.
    """

    encoder: str
    encoder_sha256: str
    width: int
    query_encoder: str | None = None
    passage_tokens: int = 160
    overlap_tokens: int = 0
    words: Words = "stems"
    generator: str = "smollm2-135m"


def write_settings(folder: Path, settings: IndexSettings) -> None:
    """Write them."""
    write_json(folder / SETTINGS, {"format_version": FORMAT_VERSION, **asdict(settings)})


def read_settings(folder: Path) -> IndexSettings:
    """What an index was made with.

    Raises:
        DataError: It is no index, or its settings cannot be read.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise DataError(f"{folder}: is no index", fix=f"Make one with: ftkit rag index SOURCE -o {folder}")
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path}: is of format {values['format_version']}; this ftkit reads {FORMAT_VERSION}",
                fix="Build it again from its sources, or use the ftkit that made it.",
            )
        settings = IndexSettings(**{key: value for key, value in values.items() if key != "format_version"})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Put back a copy of the index.") from None
    if settings.words not in TOKENIZERS or not isinstance(settings.width, int) or settings.width < 1:
        raise DataError(f"{path}: holds settings that no index has", fix="Put back a copy of the index.")
    return settings


@dataclass(frozen=True, kw_only=True)
class AnsweringDefaults:
    """How questions to an index are answered unless somebody asks otherwise; a training run writes its own.

    Attributes:
        mode: How passages are searched for.
        passages: How many the generator is given at most.
        max_new_tokens: Longest answer.
        hops: 2 to search again with what the first passage brings.
        reranker: Hub id or folder of the cross-encoder that orders the first hits anew; None for none.
        reranked: How many hits it orders.
    """

    mode: Mode = "hybrid"
    passages: int = 3
    max_new_tokens: int = 64
    hops: int = 1
    reranker: str | None = None
    reranked: int = 20


def write_defaults(folder: Path, defaults: AnsweringDefaults) -> None:
    """Write them beside an index's settings."""
    write_json(folder / DEFAULTS, asdict(defaults))


def read_defaults(folder: Path) -> AnsweringDefaults:
    """What was written, or what holds everywhere.

    Raises:
        DataError: It cannot be read.
    """
    path = folder / DEFAULTS
    if not path.is_file():
        return AnsweringDefaults()
    try:
        found = AnsweringDefaults(**json.loads(path.read_text(encoding="utf-8")))
        least = min(found.passages, found.max_new_tokens - 1, found.reranked - 1)
        if found.mode not in MODES or least < 0 or found.hops not in HOPS:
            raise ValueError(f"holds {found}")
        if not isinstance(found.reranker, (str, type(None))):
            raise ValueError(f"the reranker {found.reranker!r} is no name")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Put back a copy of the index.") from None
    return found
