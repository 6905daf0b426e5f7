"""Rows, settings and stores for the tests of what lies between files and a plan."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftkit.data.arrays import ArrayBuilder, TokenArrays
from ftkit.data.block import BlockReader, BlockSettings
from ftkit.data.encode import Encoder, EncoderSettings
from ftkit.data.settings import encoder_settings
from ftkit.data.store import StoreWriter, TokenStore
from ftkit.json_lines import json_line
from ftkit.models.tokenizer import template_names
from tests.data.preparing import TODAY
from tests.tiny import tiny_tokenizer


@functools.cache
def tiny_settings(train_on: Any = "assistant") -> EncoderSettings:
    return encoder_settings(
        tiny_tokenizer(),
        train_on=train_on,
        allow_control_tokens=False,
        today=TODAY,
        known_templates=template_names(),
    )


def block_settings(form: str = "messages", **settings: Any) -> BlockSettings:
    return BlockSettings(encoder=tiny_settings(), format=form, **settings)


def arrays_of(rows: list[dict[str, Any]], *, first_number: int = 1, form: str = "messages") -> TokenArrays:
    """Rows of one block, tokenised in this process."""
    settings = block_settings(form)
    numbers = list(range(first_number, first_number + len(rows)))
    reader = BlockReader(settings, Encoder(settings.encoder))
    return reader.read(b"".join(map(json_line, rows)), numbers, "rows.jsonl", "line")


def empty_arrays() -> TokenArrays:
    return TokenArrays(arrays=ArrayBuilder().build())


def write_store(folder: Path, *blocks: TokenArrays, files: list[int] | None = None) -> TokenStore:
    """A store of these blocks, of one file unless told."""
    folder.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder) as writer:
        for block, file in zip(blocks, files or [0] * len(blocks), strict=True):
            writer.append(block, file=file)
        writer.finish({"styles": ["line"]})
    return TokenStore(folder)


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """What a logger says meanwhile, whoever else has set up logging before."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
