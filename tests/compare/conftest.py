"""A comparison of tiny models over the shed of tests/rag."""

from __future__ import annotations

import json

import pytest

from ftkit.recipe.compare import CompareSpec
from tests.rag.encoders import encoder_folder
from tests.rag.shed import THINGS, colour, shed_recipe, write_shed


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="session")
def shed(tmp_path_factory):
    folder = write_shed(tmp_path_factory.mktemp("shed"))
    rows = [
        {"question": f"Tell me what the {thing} is.", "answers": [colour(number)], "document": f"{thing}.txt"}
        for number, thing in enumerate(THINGS)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def module_spec(shed, tiny_llama, tiny_encoder):
    """Makes specs over the shed."""

    def make(output, **changes):
        values = shed_recipe(shed, tiny_llama, tiny_encoder)
        values |= {
            "recipe": "compare", "systems": "ladder", "output": str(output),
            "reader": {"passages": 1}, "joint": {"rounds": 1, "passages": 2},
            "data": values["data"] | {"test": str(shed / "test.jsonl")},
            "answer": {"max_new_tokens": 4},
        }  # fmt: skip
        return CompareSpec.model_validate(values | changes)

    return make
