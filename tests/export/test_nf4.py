"""The 4-bit export: plain transformers loads it, it is close to the trained model, and what it costs is recorded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

pytest.importorskip("bitsandbytes", reason="nf4 exports are written by bitsandbytes")

from ftkit.export.manifest import read_manifest
from ftkit.export.verify import verify_export
from ftkit.export.write import write_export
from ftkit.methods.quantised import dequantised_weight, quantised_layers
from ftkit.pipeline.target import open_target
from tests.export.small_exports import change_manifest, tiny_trained
from tests.tiny import tiny_model_folder, tiny_tokenizer


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def exported(request, tmp_path_factory):
    """The trained model, and its merged and nf4 exports' folder."""
    folder = tmp_path_factory.mktemp(request.param)
    trained = tiny_trained(tiny_model_folder(folder / "base", request.param), tiny_tokenizer())
    write_export(trained, "merged", "float32", folder / "merged")
    write_export(trained, "nf4", "auto", folder / "nf4")
    return trained, folder


def test_the_export_passes_its_own_verification(exported):
    outcome = verify_export(exported[1] / "nf4")

    assert outcome.failures == []


def test_plain_transformers_loads_linear_layers_in_four_bits_and_the_rest_as_it_was(exported):
    model = AutoModelForCausalLM.from_pretrained(exported[1] / "nf4")
    layers = quantised_layers(model)

    # llama: q, k, v, o, gate, up, down in two layers; gpt2: c_attn, c_proj, c_fc, c_proj.
    assert len(layers) == {"llama": 14, "gpt2": 8}[model.config.model_type]
    merged = load_file(exported[1] / "merged" / "model.safetensors")
    embedding = next(name for name in merged if name.endswith(("embed_tokens.weight", "wte.weight")))
    assert torch.equal(model.get_input_embeddings().weight, merged[embedding])


def test_each_stored_weight_is_the_merged_one_rounded_to_nf4(exported):
    """The gap between neighbours of NF4's 16 levels is at most 0.31 of a block's largest entry: half is the error."""
    model = AutoModelForCausalLM.from_pretrained(exported[1] / "nf4")
    plain = AutoModelForCausalLM.from_pretrained(exported[1] / "merged")

    for name, layer in quantised_layers(model):
        stored, wanted = dequantised_weight(layer), plain.get_submodule(name).weight.detach()
        wanted = wanted if stored.shape == wanted.shape and model.config.model_type == "llama" else wanted.T
        # 0.16, and a little for the block scales, which are rounded to 8 bits.
        assert float((stored - wanted).abs().max()) <= 0.17 * float(wanted.abs().max())
        assert not torch.equal(stored, wanted)


def test_no_weight_is_stored_twice_and_the_file_is_smaller(exported):
    with safe_open(exported[1] / "nf4" / "model.safetensors", "pt") as weights:
        packed = [name for name in weights.keys() if name.endswith(".quant_state.bitsandbytes__nf4")]  # noqa: SIM118

    assert packed
    sizes = [(exported[1] / kind / "model.safetensors").stat().st_size for kind in ("nf4", "merged")]
    assert sizes[0] < sizes[1]


def test_the_manifest_and_the_card_say_what_four_bits_cost(exported):
    folder = exported[1] / "nf4"
    loss = read_manifest(folder).notes["quality_loss"]
    checks = {check.name: check.value for check in verify_export(folder).checks}

    assert loss["kl_mean"] == pytest.approx(checks["logits_match_trained"]["kl_mean"], rel=1e-3)
    assert loss["kl_mean"] > 0
    assert loss["positions"] == 4  # of the one probe
    assert f"mean KL divergence of the next token {loss['kl_mean']:.2g} nats" in (folder / "README.md").read_text()


def test_weights_scaled_up_a_little_fail(exported, tmp_path):
    folder = tmp_path / "nf4"
    shutil.copytree(exported[1] / "nf4", folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith(("norm.weight", "ln_f.weight")))
    weights[name] = weights[name] * 3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_manifest(folder)

    failed = {check.name for check in verify_export(folder).failures}

    assert "logits_match_trained" in failed or "differs_from_base" in failed


def test_ftkit_itself_answers_with_the_export(exported):
    (answer,) = open_target(str(exported[1] / "nf4")).generate(["hello"], max_new_tokens=3)

    assert answer.tokens > 0


def test_config_json_names_the_quantization(exported):
    config = json.loads((exported[1] / "nf4" / "config.json").read_text())["quantization_config"]

    assert config["load_in_4bit"] and config["bnb_4bit_quant_type"] == "nf4" and config["bnb_4bit_use_double_quant"]
    assert config["bnb_4bit_compute_dtype"] == "float32"  # the base checkpoint's own
