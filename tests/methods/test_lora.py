"""LoRA's options give the weights that their papers say, worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ftkit.errors import RecipeError
from ftkit.methods import LoRAMethod, QLoRAMethod, starts
from ftkit.methods.quantised import dequantised_weight
from ftkit.models.load import load_model
from tests.contract.cases import CPU, IDS, train_steps
from tests.tiny import tiny_tokenizer

TARGET = "model.layers.1.self_attn.q_proj"  # 32 wide on both sides
# A, (2, 32), and B, (32, 2), of which only corners are not zero: B A = [[3, 0], [6, 0], [0, 4]] at rows 0, 1, 2.
A, B = torch.zeros(2, 32), torch.zeros(32, 2)
A[0, 0], A[1, 1] = 3.0, 4.0
B[0, 0], B[1, 0], B[2, 1] = 1.0, 2.0, 1.0
PRODUCT = torch.zeros(32, 32)
PRODUCT[0, 0], PRODUCT[1, 0], PRODUCT[2, 1] = 3.0, 6.0, 4.0


def base(folder):
    return load_model(folder, dtype=torch.float32, device=CPU)


def weight_of(model, name=TARGET):
    return model.get_submodule(name).weight.detach().clone()


def adapted(model, name=TARGET):
    """PEFT's layer in the place of the base's."""
    return model.base_model.model.get_submodule(name)


@torch.no_grad()
def with_matrices(method, folder, first=A, second=B):
    """The method on the base, A and B of one layer set by hand and the others left as they start."""
    model = method.attach(base(folder))
    layer = adapted(model)
    layer.lora_A["default"].weight.copy_(first)
    layer.lora_B["default"].weight.copy_(second)
    return model


def attached_with_seed(method, folder):
    torch.manual_seed(0)
    return method.attach(base(folder))


# Scale


@pytest.mark.parametrize(
    ("use_rslora", "scale"),
    [(False, 6 / 2), (True, 6 / math.sqrt(2))],
)
def test_the_merged_weight_is_w_plus_the_scale_times_b_times_a(tiny_llama, use_rslora, scale):
    method = LoRAMethod(rank=2, alpha=6, target_modules=("q_proj",), use_rslora=use_rslora)

    merged = method.merge(with_matrices(method, tiny_llama), base(tiny_llama))

    expected = weight_of(base(tiny_llama)) + scale * PRODUCT
    torch.testing.assert_close(weight_of(merged), expected, atol=1e-6, rtol=0)


def test_the_patterns_give_each_layer_its_rank_and_scale(tiny_llama):
    method = LoRAMethod(
        rank=4,
        alpha=8,
        rank_pattern={"layers.0.mlp.down_proj": 2, "k_proj": 8},
        alpha_pattern={"k_proj": 4, "up_proj": 1},
    )

    model = method.attach(base(tiny_llama))

    def facts(name):
        layer = adapted(model, f"model.layers.{name}")
        first, second = (matrices["default"].weight for matrices in (layer.lora_A, layer.lora_B))
        return tuple(first.shape), tuple(second.shape), layer.scaling["default"]

    assert facts("0.mlp.down_proj") == ((2, 64), (32, 2), 8 / 2)
    assert facts("1.mlp.down_proj") == ((4, 64), (32, 4), 8 / 4)
    assert facts("0.self_attn.k_proj") == ((8, 32), (16, 8), 4 / 8)
    assert facts("0.mlp.up_proj") == ((4, 32), (64, 4), 1 / 4)
    assert facts("1.self_attn.q_proj") == ((4, 32), (32, 4), 8 / 4)


# DoRA


def test_doras_merged_weight_has_the_learned_lengths_and_the_direction_of_w_plus_s_b_a(tiny_llama):
    method = LoRAMethod(rank=2, alpha=6, target_modules=("q_proj",), use_dora=True)
    model = with_matrices(method, tiny_llama)
    weight = weight_of(base(tiny_llama))
    magnitude = adapted(model).lora_magnitude_vector["default"].weight
    # One length for each output: PEFT takes the rows of (out, in), which the paper, writing (in, out), calls columns.
    torch.testing.assert_close(magnitude, weight.norm(dim=1))
    lengths = torch.linspace(0.5, 2.0, 32)
    with torch.no_grad():
        magnitude.copy_(lengths)

    merged = weight_of(method.merge(model, base(tiny_llama)))

    direction = weight + 3 * PRODUCT
    expected = lengths.unsqueeze(1) * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(merged.norm(dim=1), lengths)


# PiSSA


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_the_start_takes_out_of_the_base_is_what_a_and_b_hold(tiny_llama, init):
    weight = weight_of(base(tiny_llama))

    layer = adapted(attached_with_seed(LoRAMethod(rank=4, alpha=8, init=init), tiny_llama))

    taken = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(layer.base_layer.weight + taken, weight, atol=1e-5, rtol=0)
    assert taken.norm() > 0.1 * weight.norm()


def test_pissa_takes_out_the_best_approximation_of_its_rank(tiny_llama):
    weight = weight_of(base(tiny_llama))
    left, values, right = torch.linalg.svd(weight)

    layer = adapted(attached_with_seed(LoRAMethod(rank=4, alpha=8, init="pissa"), tiny_llama))

    taken = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(taken, left[:, :4] * values[:4] @ right[:4], atol=1e-5, rtol=0)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_from_the_base_is_saved_as_twice_the_rank_on_the_untouched_base(
    tiny_llama, tmp_path, init, use_rslora
):
    patterns = {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"v_proj": 16}}
    method = LoRAMethod(rank=4, alpha=8, init=init, use_rslora=use_rslora, **patterns)
    model = attached_with_seed(method, tiny_llama)
    train_steps(model, 2)
    method.save(model, tmp_path)

    saved = load_file(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    factor = math.sqrt(2) if use_rslora else 2
    assert (config["r"], config["rank_pattern"]) == (8, {"k_proj": 4})
    assert config["lora_alpha"] == pytest.approx(8 * factor)
    assert config["alpha_pattern"] == {"v_proj": pytest.approx(16 * factor)}
    untouched = base(tiny_llama)
    for layer_name, rank, alpha in (("q_proj", 4, 8), ("k_proj", 2, 8), ("v_proj", 4, 16)):
        name = f"model.layers.1.self_attn.{layer_name}"
        layer = adapted(model, name)
        scale = alpha / math.sqrt(rank) if use_rslora else alpha / rank
        trained = layer.base_layer.weight + scale * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        first, second = (saved[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        assert (first.shape[0], second.shape[1]) == (2 * rank, 2 * rank)
        own = alpha * factor / (math.sqrt(2 * rank) if use_rslora else 2 * rank)
        assert own == pytest.approx(scale)
        torch.testing.assert_close(weight_of(untouched, name) + own * second @ first, trained, atol=1e-5, rtol=0)
    # And PEFT, reading the file, makes of it the same.
    alone = PeftModel.from_pretrained(base(tiny_llama), tmp_path).merge_and_unload()
    ours = method.merge(model, base(tiny_llama))
    torch.testing.assert_close(weight_of(alone), weight_of(ours), atol=1e-6, rtol=0)


# EVA


def test_evas_a_are_the_main_directions_of_what_its_layer_receives(tiny_llama):
    method = LoRAMethod(rank=4, alpha=8, init="eva", target_modules=("q_proj",))
    model = attached_with_seed(method, tiny_llama)
    # Five tokens, each much rarer than the one before: what they differ by spans four directions, all far apart.
    text = [5] * 128 + [60] * 64 + [7] * 24 + [80] * 8 + [9] * 2

    method.start(model, [text], lambda: None)

    plain = base(tiny_llama)
    with torch.no_grad():  # the first layer receives the normalised embeddings
        received = plain.model.layers[0].input_layernorm(plain.model.embed_tokens(torch.tensor(text)))
    directions = torch.linalg.svd(received - received.mean(dim=0), full_matrices=False).Vh[:4]
    found = adapted(model, "model.layers.0.self_attn.q_proj").lora_A["default"].weight
    torch.testing.assert_close((found @ directions.T).abs(), torch.eye(4), atol=1e-2, rtol=0)
    assert adapted(model).lora_B["default"].weight.count_nonzero() == 0  # training starts from the base exactly


@pytest.mark.parametrize("patterns", [{}, {"rank_pattern": {"k_proj": 2, "down_proj": 6}}])
def test_eva_leaves_every_layer_its_rank(tiny_llama, patterns):
    method = LoRAMethod(rank=4, alpha=8, init="eva", target_modules=("q_proj", "k_proj", "down_proj"), **patterns)
    model = attached_with_seed(method, tiny_llama)
    before = {name: tuple(value.shape) for name, value in model.named_parameters()}

    method.start(model, IDS[:2].tolist(), lambda: None)

    assert {name: tuple(value.shape) for name, value in model.named_parameters()} == before


def test_eva_takes_many_directions_and_leaves_out_the_few_tokens_at_the_end_of_the_data(tiny_llama, monkeypatch):
    monkeypatch.setattr(starts, "EVA_BATCH_TOKENS", 40)
    method = LoRAMethod(rank=20, init="eva")  # of 32; what is left after 40 tokens are three
    model = attached_with_seed(method, tiny_llama)

    method.start(model, [list(range(4, 44)), [5, 6, 7]], lambda: None)

    first = adapted(model).lora_A["default"].weight
    torch.testing.assert_close(first @ first.T, torch.eye(20), atol=1e-4, rtol=0)


def test_eva_refuses_a_rank_that_the_data_has_no_directions_for(tiny_llama):
    method = LoRAMethod(rank=8, init="eva")
    model = attached_with_seed(method, tiny_llama)
    words = "eva cannot find 8 directions, the highest rank: the training data has fewer tokens"

    with pytest.raises(RecipeError, match=words):
        method.start(model, [[5, 6, 7]], lambda: None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        # tiny Llama: 32 wide, 16 for keys and values
        ({"rank": 33}, "method.rank: 33 is above 32, the shorter side of .* or of any layer"),
        ({"rank": 4, "rank_pattern": {"k_proj": 40}}, "method.rank: 40 is above 16, the shorter side of .*k_proj"),
        ({"rank": 17, "init": "pissa"}, "method.rank: 17 is above 16, the shorter side of .*k_proj, from that many"),
    ],
)
def test_a_rank_that_no_layer_has_is_refused(tiny_llama, settings, words):
    with pytest.raises(RecipeError, match=words):
        attached_with_seed(LoRAMethod(**settings), tiny_llama)


def test_one_side_of_a_tied_embedding_is_no_target(tiny_llama):
    with pytest.raises(RecipeError, match="'embed_tokens' is tied: embedding and output head share one tensor"):
        attached_with_seed(LoRAMethod(rank=4, target_modules=("q_proj", "embed_tokens")), tiny_llama)


def test_eva_starts_beside_trained_rows_of_the_embedding(tiny_llama):
    method = LoRAMethod(rank=4, init="eva", trainable_tokens=("$",))
    method.bind(tiny_tokenizer())
    model = attached_with_seed(method, tiny_llama)

    method.start(model, IDS[:2].tolist(), lambda: None)

    first = adapted(model).lora_A["default"].weight
    torch.testing.assert_close(first @ first.T, torch.eye(4), atol=1e-4, rtol=0)


# LoftQ


def test_loftq_starts_with_the_best_fit_of_what_quantising_took_away(tiny_llama):
    method = QLoRAMethod(rank=4, alpha=8, init="loftq")
    quantised = load_model(
        tiny_llama, dtype=torch.float32, device=CPU, quantization_config=method.quantization(torch.float32)
    )
    model = method.attach(method.prepare(quantised))
    layer = adapted(model)
    lost = weight_of(base(tiny_llama)) - dequantised_weight(layer.base_layer)

    method.start(model, IDS[:2].tolist(), lambda: base(tiny_llama))

    given = 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    left, values, right = torch.linalg.svd(lost)
    torch.testing.assert_close(given, left[:, :4] * values[:4] @ right[:4], atol=1e-5, rtol=0)
    # What is still lost are the singular values that the rank has no room for.
    assert (lost - given).norm().item() == pytest.approx(values[4:].norm().item(), rel=1e-4)
    assert (lost - given).norm() < lost.norm()


# LoRA+


@pytest.mark.parametrize("use_dora", [False, True])
def test_lora_plus_names_the_b_matrices_and_nothing_else(tiny_llama, use_dora):
    method = LoRAMethod(rank=2, loraplus_lr_ratio=16, target_modules=("q_proj", "v_proj"), use_dora=use_dora)

    factors = method.learning_rate_factors(method.attach(base(tiny_llama)))

    assert factors == {
        f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_B.default.weight": 16
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    }


def test_without_lora_plus_everything_learns_at_one_rate(tiny_llama):
    method = LoRAMethod(rank=2)

    assert method.learning_rate_factors(method.attach(base(tiny_llama))) == {}
