"""One call puts an exported adapter onto its base, and refuses a base that is held otherwise than in training."""

from __future__ import annotations

import json

import pytest
import torch

from ftkit.errors import ModelError
from ftkit.methods import load_adapter
from ftkit.models.load import load_model
from tests.contract.cases import CPU, IDS, Case, logits_of, train_steps


def exported(case, base, folder, **manifest):
    """What an export holds for `load_adapter`: the adapter, and a manifest."""
    model = case.attached(base)
    train_steps(model, 2)
    case.method().save(model, folder)
    (folder / "manifest.json").write_text(json.dumps({"quantization": None, "added_tokens": [], **manifest}))
    return logits_of(model)


@pytest.mark.parametrize("recipe", ["lora", "prefix", "adapter"])
def test_one_call_gives_the_trained_logits(recipe, tiny_llama, tmp_path):
    expected = exported(Case(recipe, recipe), tiny_llama, tmp_path)

    loaded = load_adapter(load_model(tiny_llama, dtype=torch.float32, device=CPU), tmp_path)

    assert torch.equal(logits_of(loaded), expected)


def test_an_adapter_of_a_quantised_base_is_refused_on_a_plain_one(tiny_llama, tmp_path):
    case = Case("qlora", "qlora")
    exported(case, tiny_llama, tmp_path, quantization={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})

    with pytest.raises(ModelError, match="was trained on a base held quantised"):
        load_adapter(load_model(tiny_llama, dtype=torch.float32, device=CPU), tmp_path)


def test_an_adapter_of_a_plain_base_is_refused_on_a_quantised_one(tiny_llama, tmp_path):
    exported(Case("lora", "lora"), tiny_llama, tmp_path)

    with pytest.raises(ModelError, match="was trained on a base held in plain weights"):
        load_adapter(Case("qlora", "qlora").base(tiny_llama), tmp_path)


def test_the_base_gets_rows_for_added_tokens(tiny_llama, tmp_path):
    exported(Case("lora", "lora"), tiny_llama, tmp_path, added_tokens=[400, 401])
    base = load_model(tiny_llama, dtype=torch.float32, device=CPU)
    assert base.get_input_embeddings().weight.shape[0] == 400

    loaded = load_adapter(base, tmp_path)

    assert loaded(input_ids=IDS[:1]).logits.shape[-1] == 402


def test_a_folder_without_an_adapter_is_refused(tiny_llama, tmp_path):
    with pytest.raises(ModelError, match="cannot be put onto this model"):
        load_adapter(load_model(tiny_llama, dtype=torch.float32, device=CPU), tmp_path)
