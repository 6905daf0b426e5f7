"""SmolLM2-135M, tuned for some steps, answers in llama.cpp as the live model does."""

from __future__ import annotations

import importlib.util
import json

import pytest

import ftkit
from ftkit.errors import FtkitError, VerificationError
from ftkit.export.converter import find_converter
from tests.tiny import write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROUNDED = ("float16", "bfloat16", "q8_0", "q6_k", "q4_k_m")


@pytest.fixture(scope="module")
def run(smollm2, tmp_path_factory):
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; pip install 'ftkit[gguf]'")
    try:
        find_converter()
    except FtkitError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("llama_cpp")
    recipe = ftkit.LoRARecipe(
        model="smollm2-135m",
        data={"train": str(write_rows(folder / "rows.jsonl", 48)), "validation": 0.2},
        train={"learning_rate": 1e-3, "max_steps": 8, "batch_size": 8},
        export=[{"kind": "gguf", "dtype": "float32"}, "gguf-adapter"],
        output=str(folder / "run"),
    )
    ftkit.run(recipe, quiet=True)
    return folder / "run"


@pytest.mark.parametrize("kind", ["gguf", "gguf-adapter"])
def test_greedy_text_in_llama_cpp_equals_the_live_models(run, kind):
    found = json.loads((run / "export" / kind / "verify.json").read_text())["checks"]
    checks = {check["name"]: check for check in found}

    assert [check for check in found if not check["passed"]] == []
    assert checks["greedy_text_match"]["value"] == {"equal": 3, "of": 3}
    assert checks["logits_match_trained"]["value"]["top1_agreement"] == 1.0


@pytest.mark.parametrize("dtype", ROUNDED)
def test_rounded_weights_stay_within_their_limits(run, tmp_path, dtype):
    ftkit.open_run(run).export("gguf", tmp_path / dtype, dtype=dtype)

    assert json.loads((tmp_path / dtype / "verify.json").read_text())["passed"]
    stored = (tmp_path / dtype / "model.gguf").stat().st_size
    assert stored < (run / "export" / "gguf" / "model.gguf").stat().st_size * 0.51


def test_a_quantisation_that_ruins_this_model_is_not_passed(run, tmp_path):
    with pytest.raises(VerificationError, match="logits_match_trained"):
        ftkit.open_run(run).export("gguf", tmp_path / "q5", dtype="q5_k_m")
