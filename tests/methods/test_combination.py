"""Combined adapters are what the papers' formulas give on whole updates, whatever the adapters' settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ftkit.methods import Combination, LoRAMethod, expected_update, read_lora, write_combination
from ftkit.methods.lora_file import Matrices, not_additive
from ftkit.models.load import load_model
from tests.contract.cases import CPU
from tests.tiny import tiny_model_folder

HOWS = ("linear", "ties", "dare_linear", "dare_ties")
NAMES = ["default", "second"]
PLAIN: dict[str, Any] = {"rank": 4, "alpha": 8}
# Another rank and scale than the first, by everything that can set them.
ODD: dict[str, Any] = {
    "rank": 6, "alpha": 3, "use_rslora": True, "alpha_pattern": {"(up_proj|c_fc)": 20},
    "rank_pattern": {"(q_proj|c_attn)": 2, "(layers.1.mlp.down_proj|h.1.mlp.c_proj)": 9},
}  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def family(request, tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("combination") / request.param, request.param)


def saved(folder, base, seed, **settings):
    """An adapter on the disk with drawn matrices."""
    torch.manual_seed(seed)
    method = LoRAMethod(**settings)
    model = method.attach(load_model(base, dtype=torch.float32, device=CPU))
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(std=0.1)
    method.save(model, folder)
    return folder


def stacked(base, folders):
    model = PeftModel.from_pretrained(load_model(base, dtype=torch.float32, device=CPU), folders[0])
    for name, folder in zip(NAMES[1:], folders[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    return model


def relative(one, other):
    return float((one - other).norm() / other.norm())


def flat(*rows):
    """Matrices whose update is these numbers."""
    update = torch.tensor(rows)
    return {"layer": Matrices(down=torch.eye(update.shape[1]), up=update, scale=1.0)}


ONE, OTHER = flat([4.0, -1.0], [2.0, 0.5]), flat([-3.0, 5.0], [1.0, -2.0])


def test_linear_is_the_weighted_sum_of_the_updates():
    found = expected_update(Combination(weights=(1.0, -0.5)), [ONE, OTHER], "layer")

    torch.testing.assert_close(found, torch.tensor([[5.5, -3.5], [1.5, 1.5]]).double())


def test_ties_keeps_the_largest_half_elects_signs_and_takes_the_mean_of_those_that_agree():
    found = expected_update(Combination(weights=(1.0, 0.5), how="ties", density=0.5), [ONE, OTHER], "layer")

    # Trimmed: [4 0; 2 0] and [-3 5; 0 0]. At the first place 4 - 3 > 0, so only the 4 counts.
    torch.testing.assert_close(found, torch.tensor([[4.0, 2.5], [2.0, 0.0]]).double())


@pytest.mark.parametrize(("sign", "expected"), [("total", -5.0), ("frequency", 1.0)])
def test_signs_are_elected_by_size_or_by_number(sign, expected):
    three = [flat([1.0]), flat([1.0]), flat([-5.0])]
    how = Combination(weights=(1.0, 1.0, 1.0), how="ties", majority_sign=sign)

    assert expected_update(how, three, "layer").tolist() == [[expected]]


def test_dare_drops_entries_at_random_and_scales_up_what_stays():
    ones = {"layer": Matrices(down=torch.eye(100), up=torch.ones(100, 100), scale=1.0)}

    found = expected_update(Combination(weights=(1.0,), how="dare_linear", density=0.25), [ones], "layer")

    assert set(found.unique().tolist()) == {0.0, 4.0}
    assert float(found.mean()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("how", HOWS)
def test_what_peft_computes_is_what_the_formula_gives_from_the_files(family, tmp_path, how):
    folders = [saved(tmp_path / "one", family, 1, **PLAIN), saved(tmp_path / "other", family, 2, **ODD)]
    combination = Combination(weights=(0.7, 0.3), how=how, density=1.0 if how == "linear" else 0.4, seed=5)
    adapters = [read_lora(folder) for folder in folders]

    write_combination(stacked(family, folders), NAMES, combination, tmp_path / "both", rank=None)

    written = read_lora(tmp_path / "both")
    assert set(written) == set(adapters[0])
    for layer, matrices in written.items():
        assert relative(matrices.update().double(), expected_update(combination, adapters, layer)) < 1e-5, layer


def test_the_written_adapter_changes_a_plain_model_by_the_combined_update(family, tmp_path):
    folders = [saved(tmp_path / "one", family, 1, **ODD), saved(tmp_path / "other", family, 2, **PLAIN)]
    combination = Combination(weights=(1.5, -0.5))
    write_combination(stacked(family, folders), NAMES, combination, tmp_path / "both", rank=None)

    plain = load_model(family, dtype=torch.float32, device=CPU)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    merged = PeftModel.from_pretrained(plain, tmp_path / "both").merge_and_unload().state_dict()

    adapters = [read_lora(folder) for folder in folders]
    for layer in adapters[0]:
        change = merged[f"{layer}.weight"] - before[f"{layer}.weight"]
        expected = expected_update(combination, adapters, layer).float()
        # GPT-2 holds its weights as (in, out).
        torch.testing.assert_close(change, expected.T if "transformer.h" in layer else expected, atol=2e-5, rtol=0)


def test_a_layer_that_one_adapter_lacks_comes_from_the_other_alone(tiny_llama, tmp_path):
    folders = [
        saved(tmp_path / "one", tiny_llama, 1, **PLAIN, target_modules=("q_proj", "layers.0.mlp.down_proj")),
        saved(tmp_path / "other", tiny_llama, 2, **PLAIN, target_modules=("q_proj", "up_proj")),
    ]
    write_combination(
        stacked(tiny_llama, folders), NAMES, Combination(weights=(2.0, 3.0)), tmp_path / "both", rank=None
    )

    written, one = read_lora(tmp_path / "both"), read_lora(folders[0])
    assert set(written) == set(one) | set(read_lora(folders[1]))
    layer = "model.layers.0.mlp.down_proj"
    assert relative(written[layer].update(), 2 * one[layer].update()) < 1e-6
    assert "model.layers.1.mlp.down_proj" not in written


def test_peft_cat_gives_the_same_sum_where_it_does_not_scale_twice(tiny_llama, tmp_path):
    folders = [saved(tmp_path / "one", tiny_llama, 1, **PLAIN), saved(tmp_path / "other", tiny_llama, 2, **PLAIN)]
    model = stacked(tiny_llama, folders)
    write_combination(model, NAMES, Combination(weights=(0.7, 0.3)), tmp_path / "both", rank=None)
    model.add_weighted_adapter(NAMES, [0.7, 0.3], "cat", combination_type="cat")

    for layer, matrices in read_lora(tmp_path / "both").items():
        by_peft = model.base_model.model.get_submodule(layer).get_delta_weight("cat")
        assert relative(matrices.update(), by_peft) < 1e-5


def test_peft_linear_is_not_the_sum_of_the_updates(tiny_llama, tmp_path):
    """The reason why `linear` is not PEFT's; should it become so, this can go."""
    folders = [saved(tmp_path / "one", tiny_llama, 1, **PLAIN), saved(tmp_path / "other", tiny_llama, 2, **PLAIN)]
    model = stacked(tiny_llama, folders)
    model.add_weighted_adapter(NAMES, [0.7, 0.3], "linear", combination_type="linear")

    adapters = [read_lora(folder) for folder in folders]
    layer = "model.layers.0.self_attn.q_proj"
    by_peft = model.base_model.model.get_submodule(layer).get_delta_weight("linear")
    assert relative(by_peft, expected_update(Combination(weights=(0.7, 0.3)), adapters, layer)) > 0.3


def test_a_rank_that_is_too_low_keeps_the_best_part_and_says_how_much_is_lost(family, tmp_path):
    folders = [saved(tmp_path / "one", family, 1, **PLAIN), saved(tmp_path / "other", family, 2, **PLAIN)]
    combination = Combination(weights=(0.7, 0.3), how="ties", density=0.5)

    built = write_combination(stacked(family, folders), NAMES, combination, tmp_path / "both", rank=5)

    adapters = [read_lora(folder) for folder in folders]
    for layer, matrices in read_lora(tmp_path / "both").items():
        whole = expected_update(combination, adapters, layer)
        values = torch.linalg.svdvals(whole)
        assert matrices.down.shape[0] == built.rank == 5
        assert built.length[layer] == pytest.approx(float(whole.norm()), rel=1e-5)
        assert built.lost[layer] == pytest.approx(float(values[5:].norm()), rel=1e-4)
        assert float((whole - matrices.update()).norm()) == pytest.approx(built.lost[layer], rel=1e-4)


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(tiny_llama, tmp_path):
    folders = [saved(tmp_path / "one", tiny_llama, 1, **PLAIN), saved(tmp_path / "other", tiny_llama, 2, **PLAIN)]
    written = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(written))  # what was drawn before must not matter
        combination = Combination(weights=(0.5, 0.5), how="dare_ties", density=0.5, seed=seed)
        write_combination(stacked(tiny_llama, folders), NAMES, combination, tmp_path / name, rank=8)
        written.append((tmp_path / name / "adapter_model.safetensors").read_bytes())

    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ("lm_head",)}, "whole modules"),
        ({"target_modules": ("q_proj", "embed_tokens")}, "no layer's A or B"),
    ],
)
def test_what_is_no_sum_of_thin_products_is_told(tmp_path, settings, because):
    base = tiny_model_folder(tmp_path / "base", "qwen2")
    folder = saved(tmp_path / "adapter", base, 1, **PLAIN, **settings)

    assert because in not_additive(folder)


@pytest.mark.parametrize(
    ("change", "because"),
    [({"bias": "all"}, "biases"), ({"peft_type": "ADALORA"}, "ADALORA"), ({"lora_bias": True}, "biases")],
)
def test_settings_that_ftkit_never_writes_are_told_too(tiny_llama, tmp_path, change, because):
    folder = saved(tmp_path / "adapter", tiny_llama, 1, **PLAIN)
    assert not_additive(folder) is None
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))

    assert because in not_additive(folder)


def test_every_layer_of_the_result_has_one_rank_without_patterns(tiny_llama, tmp_path):
    folders = [saved(tmp_path / "one", tiny_llama, 1, **PLAIN), saved(tmp_path / "other", tiny_llama, 2, **ODD)]
    write_combination(stacked(tiny_llama, folders), NAMES, Combination(weights=(1, 1)), tmp_path / "both", rank=None)

    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "both" / "adapter_model.safetensors")
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (13, 13, False)
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert {value.shape[0] for name, value in tensors.items() if ".lora_A." in name} == {13}
