from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from tests.contract.cases import FAMILIES, PAIRS, logits_of, train_steps
from tests.tiny import tiny_model_folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """A folder with a folder of a tiny model for each family; read-only for tests."""
    folder = tmp_path_factory.mktemp("contract")
    for family in FAMILIES:
        tiny_model_folder(folder / "bases" / family, family)
    return folder / "bases"


@pytest.fixture(scope="session")
def bases16(tmp_path_factory):
    """The same in bfloat16, as most published models are."""
    folder = tmp_path_factory.mktemp("contract16")
    for family in FAMILIES:
        tiny_model_folder(folder / family, family, dtype="bfloat16")
    return folder


@pytest.fixture(scope="session")
def reloaded(bases, request):
    """For every pair: the logits of the trained model, and those that a fresh process gets from what was saved.

    One process for all pairs: starting Python with torch takes longer than all of them together. Left out are pairs
    that no test of this session asks for.
    """
    folder, trained = bases.parent, {}
    asking = [item.callspec.params for item in request.session.items if "reloaded" in item.fixturenames]
    asked = {(params["case"].id, params["family"]) for params in asking}
    for case, family in PAIRS:
        if (case.id, family) not in asked:
            continue
        method, model = case.method(), case.attached(bases / family)
        train_steps(model, 3, hooks=method.training_hooks(model, 10))
        trained[case.id, family] = logits_of(model)
        method.save(model, folder / f"{case.id}__{family}")
    command = [sys.executable, "-m", "tests.contract.reload", str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = load_file(folder / "reloaded.safetensors")
    return {
        (case, family): SimpleNamespace(
            trained=value, fresh=logits[f"{case}__{family}"], plain=logits.get(f"plain/{case}__{family}")
        )
        for (case, family), value in trained.items()
    }
