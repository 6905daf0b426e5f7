"""Our adapters give the logits that adapter-hub's ``adapters`` gave for the same weights.

The fixture is recorded, for the package pins a transformers of its own: see `adapter_hub_fixture`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.methods import bottleneck

DATA = Path(__file__).parent / "data"
FAMILIES = ("llama", "mistral", "gpt2")
ARCHITECTURES = ("houlsby", "pfeiffer", "parallel")
# Two releases of transformers in float32, logits of up to 4.
TOLERANCE = 1e-5


def recorded_model(family: str) -> Any:
    config = AutoConfig.for_model(**json.loads((DATA / family / "config.json").read_text(encoding="utf-8")))
    model = AutoModelForCausalLM.from_config(config).float().eval()
    weights = {name: weight.float() for name, weight in load_file(DATA / family / "model.safetensors").items()}
    left_out = model.load_state_dict(weights, strict=False)
    assert left_out.unexpected_keys == [] and set(left_out.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    return model


@torch.no_grad()
def largest_difference(model: Any, recorded: dict[str, torch.Tensor], name: str) -> float:
    return float((model(recorded["ids"]).logits - recorded[name]).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bare_base_is_the_recorded_one(family: str) -> None:
    recorded = load_file(DATA / family / "logits.safetensors")

    assert largest_difference(recorded_model(family), recorded, "base") < TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_with_those_of_adapter_hub(family: str, architecture: str) -> None:
    recorded = load_file(DATA / family / "logits.safetensors")
    model = bottleneck.load(recorded_model(family), DATA / family / architecture)

    assert largest_difference(model, recorded, architecture) < TOLERANCE
    # And the adapter does act: without it the logits are far away.
    bottleneck.set_active(model, None)
    assert largest_difference(model, recorded, architecture) > 1
