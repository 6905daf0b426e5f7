"""A small index with models of random weights that differ; and two topics, each with an index that can answer it."""

from __future__ import annotations

import json

import pytest

from ftkit.rag.document import Document
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.index import create_index
from ftkit.rag.opening import index_documents
from ftkit.rag.settings import AnsweringDefaults, IndexSettings, write_defaults
from tests.hybrid.targets import TEXTS, random_target
from tests.rag.encoders import encoder_folder
from tests.tiny import tiny_model_folder


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


TOWNS = ["Oum", "Lir", "Tas", "Vek", "Pol", "Sid", "Ran", "Mur", "Gob", "Hal", "Jun", "Kip"]
TOOLS = ["rake", "saw", "axe", "drill", "vice", "lamp", "rope", "pail", "sieve", "file", "plane", "mop"]


def mayor(number: int) -> str:
    return f"Berg{number}"


def colour(number: int) -> str:
    return f"green{number}"


def rows() -> list[dict[str, object]]:
    """Two questions of each town and of each tool."""
    found: list[dict[str, object]] = []
    for number, town in enumerate(TOWNS):
        for asked in (f"Who is the mayor of {town}?", f"The mayor of the town {town} is who?"):
            found.append({"question": asked, "answers": [mayor(number)], "document": f"{town}.txt"})
    for number, tool in enumerate(TOOLS):
        for asked in (f"What colour has the {tool}?", f"Which colour is my {tool} painted?"):
            found.append({"question": asked, "answers": [colour(number)], "document": f"{tool}.txt"})
    return found


@pytest.fixture(scope="session")
def topics(tmp_path_factory):
    """Encoder, generator, an index of towns, one of tools, and the questions."""
    folder = tmp_path_factory.mktemp("hybrid")
    encoder = encoder_folder(folder / "encoder", max_tokens=64)
    model = tiny_model_folder(folder / "model", max_position_embeddings=1024)
    for name, things, said in (
        ("towns", TOWNS, lambda number, thing: f"The mayor of {thing} is {mayor(number)}."),
        ("tools", TOOLS, lambda number, thing: f"The colour of the {thing} is {colour(number)}."),
    ):
        (folder / name).mkdir()
        for number, thing in enumerate(things):
            (folder / name / f"{thing}.txt").write_text(said(number, thing))
        index_documents(
            [folder / name], folder / f"{name}-index", encoder=str(encoder), generator=str(model), passage_tokens=60
        )
        write_defaults(folder / f"{name}-index", AnsweringDefaults(mode="lexical", passages=1, max_new_tokens=8))
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return folder


@pytest.fixture
def values(topics, tmp_path):
    """Of a recipe over the two indexes."""
    return {
        "recipe": "hybrid",
        "members": {
            "towns": {"path": str(topics / "towns-index")},
            "tools": {"path": str(topics / "tools-index")},
        },
        "data": {"train": str(topics / "questions.jsonl"), "validation": 0.25},
        "router": {"encoder": str(topics / "encoder")},
        "output": str(tmp_path / "run"),
    }
