"""Encoders of random weights for the tests of this folder; read-only."""

from __future__ import annotations

import pytest

from ftkit.rag.encoder import EncoderPair, load_encoder
from tests.rag.encoders import encoder_folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def pair(tiny_encoder):
    return EncoderPair(load_encoder(str(tiny_encoder)))


@pytest.fixture(scope="session")
def wide_encoder(tmp_path_factory):
    """Reads a whole page of a closed world, so that each document is one passage."""
    return encoder_folder(tmp_path_factory.mktemp("encoder") / "wide", max_tokens=1200)


@pytest.fixture(scope="session")
def wide_pair(wide_encoder):
    return EncoderPair(load_encoder(str(wide_encoder)))
