"""A small index, and models of random weights that differ."""

from __future__ import annotations

import pytest

from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.index import create_index
from ftkit.rag.settings import IndexSettings
from tests.hybrid.targets import TEXTS, random_target
from tests.rag.encoders import encoder_folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def parts(tiny_encoder, tmp_path_factory):
    """What every system is made of, but its generator; read-only."""
    pair = EncoderPair(load_encoder(str(tiny_encoder)))
    settings = IndexSettings(encoder=str(tiny_encoder), encoder_sha256=pair.sha256, width=16, passage_tokens=48)
    with create_index(tmp_path_factory.mktemp("hybrid") / "index", settings) as index:
        index.add([Document(id=name, text=text) for name, text in TEXTS.items()], pair)
        yield {"index": index, "encoders": pair, "mode": "lexical", "passages": 3, "max_new_tokens": 12}


@pytest.fixture(scope="session")
def tuned():
    return random_target(1)


@pytest.fixture(scope="session")
def reader():
    return random_target(2)
