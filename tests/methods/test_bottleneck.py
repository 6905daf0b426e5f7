"""Bottleneck adapters: the arithmetic by hand, the promises about the base, and what is refused."""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import silu
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig

from ftkit.methods import bottleneck
from ftkit.methods.bottleneck import Bottleneck, BottleneckConfig, BottleneckError

IDS = torch.tensor([[5, 60, 7, 33, 9, 21], [13, 40, 15, 26, 17, 58]])
SPECIAL = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
WIDE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    **SPECIAL,
}
GROUPED = {**WIDE, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "mistral": GROUPED,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, **SPECIAL},
    "gpt_neox": {**WIDE, "use_parallel_residual": False},
    "gpt_neox parallel": {**WIDE, "use_parallel_residual": True},
    "phi": WIDE,
    "olmo": GROUPED,  # norms without parameters
}
ARCHITECTURES = ("houlsby", "pfeiffer", "parallel")


def tiny(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.split()[0], **{**FAMILIES[family], **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # transformers draws weights whose logits hardly differ; spread them
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def settings(architecture: str = "houlsby", **changes: Any) -> BottleneckConfig:
    return BottleneckConfig(**{"architecture": architecture, "reduction_factor": 8, **changes})


def randomise(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give the active adapter weights that do something."""
    torch.manual_seed(seed)
    for site in sites(model):
        for parameter in site.adapters[site.active].parameters():
            parameter.data.normal_(std=0.3)
    return model


def adapted(family: str = "llama", architecture: str = "houlsby", **changes: Any) -> nn.Module:
    return randomise(bottleneck.attach(tiny(family), settings(architecture, **changes), train=True))


def sites(model: nn.Module) -> list[Any]:
    return [layer.bottleneck_adapters for layer in bottleneck.decoder_layers(model)]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


# The arithmetic.


def test_the_correction_is_down_activation_up_and_scale() -> None:
    one = Bottleneck(2, BottleneckConfig(architecture="pfeiffer", reduction_factor=2, scaling=4.0))
    one.down.weight.data, one.down.bias.data = torch.tensor([[1.0, 2.0]]), torch.tensor([-1.0])
    one.up.weight.data, one.up.bias.data = torch.tensor([[3.0], [-1.0]]), torch.tensor([0.5, 0.0])

    # relu(1*1 + 2*2 - 1) = 4 gives 4 * (3*4 + 0.5, -1*4); relu(1*1 - 2*2 - 1) = 0 gives 4 * (0.5, 0).
    assert one(torch.tensor([[1.0, 2.0], [1.0, -2.0]])).tolist() == [[50.0, -16.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "at_minus_one"),
    [("relu", 0.0), ("gelu", -0.158655), ("gelu_new", -0.158808), ("silu", -0.268941), ("swish", -0.268941),
     ("tanh", -0.761594), ("leaky_relu", -0.01)],
)  # fmt: skip
def test_each_non_linearity_is_the_function_of_its_name(name: str, at_minus_one: float) -> None:
    one = Bottleneck(1, BottleneckConfig(architecture="pfeiffer", reduction_factor=1, non_linearity=name))
    nn.init.ones_(one.down.weight), nn.init.ones_(one.up.weight)

    assert one(torch.tensor([-1.0])).item() == pytest.approx(at_minus_one, abs=1e-6)


def branches_of_a_bare_layer(model: Any, family: str) -> tuple[Any, ...]:
    """The first layer's input, what attention adds to it, and the feed-forward as a function of the stream."""
    layer, seen = bottleneck.decoder_layers(model)[0], {}
    attends = {"llama": "self_attn", "gemma2": "post_attention_layernorm", "gpt_neox parallel": "attention"}[family]
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: seen.update(into=args[0])),
        layer.get_submodule(attends).register_forward_hook(lambda _, args, out: seen.update(branch=out)),
    ]
    logits(model)
    for hook in hooks:
        hook.remove()
    if family == "gemma2":
        pre, post = layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm
        return seen["into"], seen["branch"], lambda stream: post(layer.mlp(pre(stream)))
    return seen["into"], seen["branch"][0], lambda stream: layer.mlp(layer.post_attention_layernorm(stream))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox parallel"])
@torch.no_grad()
def test_one_layer_gives_what_the_formula_gives(family: str, architecture: str) -> None:
    model = tiny(family)
    into, attention, feed_forward = branches_of_a_bare_layer(model, family)
    randomise(bottleneck.attach(model, settings(architecture, non_linearity="silu", scaling=2.0)))
    one = sites(model)[0].adapters["default"]
    bottleneck.set_active(model, None)

    def correction(place: str, read: torch.Tensor) -> torch.Tensor:
        down, up = one[place].down, one[place].up
        return 2.0 * (silu(read @ down.weight.T + down.bias) @ up.weight.T + up.bias)

    if architecture == "houlsby":
        attention = attention + correction("attention", attention)
    # GPT-NeoX's parallel branches both read the layer's input.
    stream = into if family == "gpt_neox parallel" else into + attention
    branch = feed_forward(stream)
    read = {"houlsby": branch, "pfeiffer": stream + branch, "parallel": stream}[architecture]
    expected = into + attention + branch + correction("ffn", read)

    out: dict[str, torch.Tensor] = {}
    bottleneck.set_active(model, "default")
    bottleneck.decoder_layers(model)[0].register_forward_hook(lambda _, args, output: out.update(it=output))
    logits(model)
    torch.testing.assert_close(out["it"], expected, rtol=0, atol=2e-5)


def test_pfeiffer_reads_the_stream_in_front_of_a_norm_without_parameters() -> None:
    model = adapted("olmo", "parallel")
    layer, read = bottleneck.decoder_layers(model)[0], {}
    layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: read.update(stream=args[0]))
    sites(model)[0].adapters["default"]["ffn"].register_forward_pre_hook(lambda _, args: read.update(it=args[0]))
    logits(model)

    assert read["it"] is read["stream"]


def test_dropout_falls_on_the_correction_and_only_in_training() -> None:
    model = adapted(dropout=0.5)
    still = logits(model)

    assert torch.equal(logits(model), still)
    assert not torch.equal(logits(model.train()), still)
    assert torch.equal(logits(model.eval()), still)


# The base.


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_adapter_leaves_the_base_bit_for_bit_as_it_was(family: str) -> None:
    model = tiny(family)
    bare = logits(model)

    for architecture in ARCHITECTURES:
        bottleneck.attach(model, settings(architecture), architecture)
        assert torch.equal(logits(model), bare)
        # And its hooks are there: with other weights it does act.
        assert (logits(randomise(model)) - bare).abs().max() > 0.05


def test_two_adapters_do_not_disturb_each_other_and_none_is_the_bare_base() -> None:
    model = tiny("llama")
    bare, alone = logits(model), {}
    for seed, architecture in enumerate(("houlsby", "parallel")):
        alone[architecture] = logits(randomise(bottleneck.attach(tiny("llama"), settings(architecture)), seed))
        randomise(bottleneck.attach(model, settings(architecture), architecture), seed)

    for name in ("houlsby", "parallel", None, "houlsby"):
        bottleneck.set_active(model, name)
        assert torch.equal(logits(model), alone.get(name, bare))
    assert bottleneck.attached(model) == ["houlsby", "parallel"]


def test_detaching_leaves_no_hook_and_no_module() -> None:
    model = tiny("llama")
    bare, names, hooks = logits(model), [name for name, _ in model.named_modules()], hook_count(model)
    for name in ("a", "b"):
        randomise(bottleneck.attach(model, settings(), name))
    kept = logits(model)

    bottleneck.detach(model, "a")
    assert torch.equal(logits(model), kept)
    bottleneck.detach(model, "b")
    assert torch.equal(logits(model), bare)
    assert [name for name, _ in model.named_modules()] == names and hook_count(model) == hooks


def test_attaching_keeps_modes_and_draws_the_same_weights_for_the_same_seed() -> None:
    models = [tiny("gpt2").train() for _ in range(2)]
    models[0].transformer.h[1].eval()
    modes = {name: module.training for name, module in models[0].named_modules()}
    for model in models:
        torch.manual_seed(7)
        bottleneck.attach(model, settings())

    assert {name: module.training for name, module in models[0].named_modules() if name in modes} == modes
    assert [site.adapters.training for site in sites(models[0])] == [True, True]
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_parameters_are_float32_whatever_the_default_dtype() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        one = Bottleneck(32, settings())
    finally:
        torch.set_default_dtype(torch.float32)

    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32}


def test_down_starts_like_berts_layers_and_up_at_zero() -> None:
    torch.manual_seed(0)
    one = Bottleneck(256, BottleneckConfig(architecture="houlsby", reduction_factor=1))

    assert one.down.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert [int(zero.count_nonzero()) for zero in (one.down.bias, one.up.weight, one.up.bias)] == [0, 0, 0]


# Training.


def test_only_the_adapter_trains_and_only_when_told() -> None:
    model = bottleneck.attach(tiny("llama"), settings())
    assert {name for name in trained(model) if "bottleneck" in name} == set()
    assert trained(model) != {}

    bottleneck.attach(model, settings("pfeiffer"), "new", train=True)
    assert all(".new.ffn." in name for name in trained(model))
    # Two layers of 32 -> 4 -> 32: down 4*32 + 4, up 32*4 + 32.
    assert sum(parameter.numel() for parameter in trained(model).values()) == 2 * (132 + 160)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_reaches_every_adapter_parameter_after_one_step(architecture: str) -> None:
    model = bottleneck.attach(tiny("llama"), settings(architecture, non_linearity="tanh"), train=True)
    optimizer = torch.optim.SGD(trained(model).values(), lr=0.1)
    for _ in range(2):  # at first up is zero, which keeps down's gradient at zero
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()

    assert [name for name, parameter in trained(model).items() if not parameter.grad.abs().sum() > 0] == []
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == list(
        trained(model)
    )


def gradients(model: Any) -> list[torch.Tensor]:
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    return [parameter.grad for parameter in trained(model).values()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_nothing(architecture: str) -> None:
    plain, saving = adapted("gemma2", architecture), adapted("gemma2", architecture)
    saving.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    for one, other in zip(gradients(plain), gradients(saving), strict=True):
        assert torch.equal(one, other)
    assert all(site.stream is None for site in sites(saving))


def test_the_stream_is_let_go_also_when_the_layer_fails() -> None:
    model = adapted(architecture="parallel")
    logits(model)
    assert [site.stream for site in sites(model)] == [None, None]

    def fail(*_: Any) -> None:
        raise MemoryError

    model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        logits(model)
    assert [site.stream for site in sites(model)] == [None, None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_16_bit_base_keeps_its_dtype_and_the_adapter_float32(architecture: str) -> None:
    bare = tiny("llama").bfloat16()
    expected = logits(bare)
    model = bottleneck.attach(bare, settings(architecture), train=True)

    assert torch.equal(logits(model), expected)
    assert {parameter.dtype for parameter in trained(model).values()} == {torch.float32}
    randomise(model)
    assert logits(model).dtype == torch.bfloat16
    assert sites(model)[0].adapters["default"]["ffn"](torch.ones(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients(model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_autocast_computes_the_adapter_too_and_leaves_the_base_exact(architecture: str) -> None:
    model = tiny("llama")
    with torch.autocast("cpu", torch.bfloat16):
        bare = logits(model)
        bottleneck.attach(model, settings(architecture), train=True)
        assert torch.equal(logits(model), bare)
    with torch.autocast("cpu", torch.bfloat16):  # anew, for autocast keeps the casts that it made without gradients
        gradients(randomise(model))
        dtypes: list[torch.dtype] = []
        model.model.layers[0].mlp.register_forward_hook(lambda _, args, output: dtypes.append(output.dtype))
        close = logits(model.eval()).float()
    assert dtypes == [torch.bfloat16]  # as without the adapter, though the stream that it reads is float32

    assert all(parameter.grad.abs().sum() > 0 for parameter in trained(model).values())
    assert (close - logits(model)).abs().max() < 0.1 < (close - bare.float()).abs().max()


# Quantised bases.


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny("llama").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "bits",
    [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
     {"load_in_8bit": True}],
    ids=["nf4", "int8"],
)  # fmt: skip
def test_a_quantised_base_stays_exact_and_passes_gradients_on(bits: dict[str, Any], llama_folder: Path) -> None:
    pytest.importorskip("bitsandbytes")

    def base() -> Any:
        quantized = BitsAndBytesConfig(**bits)
        return AutoModelForCausalLM.from_pretrained(llama_folder, quantization_config=quantized).train()

    # In training mode, in which bitsandbytes repacks nothing; the trace must not have it repack either.
    bare, model = base(), bottleneck.attach(base(), settings(non_linearity="tanh"), train=True)
    assert torch.equal(logits(model), logits(bare))
    assert all(gradient.abs().sum() > 0 for gradient in gradients(randomise(model)))


# Generation, copies, files.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generation_with_the_cache_gives_the_tokens_without_it(architecture: str) -> None:
    model = adapted(architecture=architecture)
    wanted = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    cached, uncached = (model.generate(IDS, use_cache=use, **wanted) for use in (True, False))

    assert torch.equal(cached, uncached)
    bottleneck.set_active(model, None)
    assert not torch.equal(model.generate(IDS, **wanted), cached)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_hooks_of_a_copy_act_on_the_copys_own_adapters(architecture: str) -> None:
    model = adapted("llama", architecture)
    before, twin = logits(model), copy.deepcopy(model)
    assert torch.equal(logits(twin), before)

    moved = logits(randomise(twin, seed=2))
    assert torch.equal(moved, logits(randomise(adapted("llama", architecture), seed=2)))
    assert not torch.equal(moved, before)
    assert torch.equal(logits(model), before)
    bottleneck.detach(twin)
    assert torch.equal(logits(twin), logits(tiny("llama")))
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_loaded_gives_the_bits_of_what_was_saved(architecture: str, tmp_path: Path) -> None:
    model = adapted("gemma2", architecture, scaling=3.0, non_linearity="gelu")
    bottleneck.save(model, tmp_path, extra={"base": "some/model"})
    loaded = bottleneck.load(tiny("gemma2"), tmp_path, "served")

    assert torch.equal(logits(loaded), logits(model))
    assert bottleneck.attached(loaded) == ["served"]
    assert not any("served" in name for name in trained(loaded))

    # Loaded to be trained on, and without a draw from the global generator.
    state = torch.random.get_rng_state()
    bottleneck.load(loaded, tmp_path, "again", train=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(trained(loaded)) == len(trained(model)) > 0


def test_the_files_are_those_that_the_module_describes(tmp_path: Path) -> None:
    bottleneck.save(adapted("llama", "houlsby"), tmp_path / "new", extra={"base": "some/model"})

    assert json.loads((tmp_path / "new" / "adapter_config.json").read_text()) == {
        "format": "ftkit-bottleneck",
        "format_version": 1,
        "adapter": {"architecture": "houlsby", "reduction_factor": 8.0, "non_linearity": "relu", "scaling": 1.0,
                    "dropout": 0.0},
        "width": 32,
        "layer_count": 2,
        "model_type": "llama",
        "base": "some/model",
    }  # fmt: skip
    one_place = {"down.weight": (4, 32), "down.bias": (4,), "up.weight": (32, 4), "up.bias": (32,)}
    tensors = load_file(tmp_path / "new" / "adapter_model.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        f"layers.{at}.{place}.{key}": shape
        for at in (0, 1) for place in ("attention", "ffn") for key, shape in one_place.items()
    }  # fmt: skip
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_extra_keys_cannot_replace_those_of_the_format(tmp_path: Path) -> None:
    with pytest.raises(BottleneckError, match=r"the format's own: width"):
        bottleneck.save(adapted(), tmp_path, extra={"width": 1})


def test_the_file_imports_nothing_of_ftkit_and_runs_loaded_by_its_path() -> None:
    tree = ast.walk(ast.parse(Path(bottleneck.__file__).read_text(encoding="utf-8")))
    names = [
        f"{'.' * node.level}{node.module}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in tree if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    ]  # fmt: skip
    assert {"torch", "safetensors.torch"} < set(names)
    assert [name for name in names if name.startswith((".", "ftkit", "transformers"))] == []

    spec: Any = importlib.util.spec_from_file_location("copied", bottleneck.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    model = adapted()
    # The hooks that one copy of the file registered are the other's to switch.
    alone.set_active(model, None)
    assert torch.equal(logits(model), logits(tiny("llama")))


# On the meta device.


def test_on_the_meta_device_parameters_are_counted_and_a_forward_pass_is_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **GROUPED))
    bottleneck.attach(model, settings(), train=True)

    # Two layers, two places, as above.
    assert sum(parameter.numel() for parameter in trained(model).values()) == 2 * 2 * (132 + 160)
    with pytest.raises(BottleneckError, match="attached on the meta device"):
        model.model.layers[0](torch.zeros(1, 2, 32, device="meta"))


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduction_factor": 0}, "reduction_factor is 0. It must be above 0"),
        ({"reduction_factor": -2}, "reduction_factor is -2. It must be above 0"),
        ({"reduction_factor": "16"}, "reduction_factor is '16'. Use a finite number"),
        ({"reduction_factor": float("nan")}, "reduction_factor is nan. Use a finite number"),
        ({"reduction_factor": True}, "reduction_factor is True. Use a finite number"),
        ({"non_linearity": "rleu"}, "unknown non_linearity 'rleu'. Use one of relu, gelu"),
        ({"non_linearity": ["relu"]}, r"unknown non_linearity \['relu'\]"),
        ({"architecture": "compacter"}, "unknown architecture 'compacter'. Use one of houlsby, pfeiffer, parallel"),
        ({"dropout": 1}, "dropout is 1. It must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"scaling": 0}, "scaling is 0"),
        ({"scaling": float("inf")}, "scaling is inf"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BottleneckError, match=message):
        settings(**changes)


def test_a_reduction_factor_may_be_as_large_as_the_width_and_no_larger() -> None:
    widths = [settings(reduction_factor=factor).bottleneck_width(32) for factor in (0.5, 1, 6, 16, 17, 32)]
    assert widths == [64, 32, 5, 2, 1, 1]

    model = tiny("llama")
    with pytest.raises(BottleneckError, match=r"reduction_factor 32\.5 is larger than the model's width, 32"):
        bottleneck.attach(model, settings(reduction_factor=32.5))
    assert bottleneck.attached(model) == [] and hook_count(model) == hook_count(tiny("llama"))


def test_settings_survive_the_way_through_a_dictionary_and_unknown_keys_do_not() -> None:
    config = settings("parallel", scaling=4, dropout=0.1, non_linearity="gelu_new")
    assert BottleneckConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    with pytest.raises(BottleneckError, match="unknown key 'ranks', no key 'dropout'"):
        BottleneckConfig.from_dict({**{k: v for k, v in config.to_dict().items() if k != "dropout"}, "ranks": 4})


@pytest.mark.parametrize("name", ["", "a.b", "default", "items", "training"])
def test_a_name_that_cannot_be_held_is_refused(name: str) -> None:
    with pytest.raises(BottleneckError, match="an adapter cannot be named"):
        bottleneck.attach(adapted(), settings(), name)


def test_an_adapter_that_is_not_there_is_named_with_those_that_are() -> None:
    model = adapted()
    for act in (bottleneck.set_active, bottleneck.detach, lambda model, name: bottleneck.save(model, "x", name)):
        with pytest.raises(BottleneckError, match=r"no adapter 'other' is attached\. Attached are: default"):
            act(model, "other")


SMALL = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 4, "vocab_size": 64}


@pytest.mark.parametrize(
    ("model_type", "values", "reason"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 4}, "BloomBlock adds the residual inside"),
        ("openai-gpt", {"n_embd": 32, "n_layer": 1, "n_head": 4}, "Block normalises after adding"),
        ("opt", {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
                 "word_embed_proj_dim": 32}, "more than one feed-forward: fc1, fc2"),
        ("t5", SMALL, "encoder-decoder"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, "has no decoder layers"),
    ],
)  # fmt: skip
def test_a_model_without_a_place_for_adapters_is_refused_with_the_reason(
    model_type: str, values: dict[str, Any], reason: str
) -> None:
    kind = AutoModelForSeq2SeqLM if model_type == "t5" else AutoModelForCausalLM
    model = kind.from_config(AutoConfig.for_model(model_type, **{**SPECIAL, **values}))
    hooks = hook_count(model)

    with pytest.raises(BottleneckError, match=reason):
        bottleneck.attach(model, settings())
    assert hook_count(model) == hooks


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"hidden_size": 64, "head_dim": 8}, "width is 32 in .*, and 64 in the base"),
        ("llama", {"num_hidden_layers": 3}, "layer_count is 2 in .*, and 3 in the base"),
        ("mistral", {}, "model_type is 'llama' in .*, and 'mistral' in the base"),
    ],
)
def test_another_base_is_refused_and_left_as_it_was(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    bottleneck.save(adapted("llama"), tmp_path)
    other = tiny(family, **changes)

    with pytest.raises(BottleneckError, match=message):
        bottleneck.load(other, tmp_path)
    assert bottleneck.attached(other) == []


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_tensors(folder: Path, **changes: Any) -> None:
    tensors = {**load_file(folder / "adapter_model.safetensors"), **changes}
    save_file(
        {key: value for key, value in tensors.items() if value is not None}, folder / "adapter_model.safetensors"
    )


BIAS = "layers.1.ffn.up.bias"
DAMAGES: dict[str, tuple[Any, str]] = {
    "no config": (lambda at: (at / "adapter_config.json").unlink(), "adapter_config.json cannot be read"),
    "cut config": (lambda at: (at / "adapter_config.json").write_text('{"format'), "adapter_config.json cannot be"),
    "no object": (lambda at: (at / "adapter_config.json").write_text("[]"), "is no adapter of format"),
    "other format": (lambda at: _edit_config(at, format="lora"), "is no adapter of format 'ftkit-bottleneck'"),
    "later version": (lambda at: _edit_config(at, format_version=2), "is of format_version 2. This reads version 1"),
    "no settings": (lambda at: _edit_config(at, adapter=None), "holds no adapter settings"),
    "unknown setting": (lambda at: _edit_config(at, adapter={"rank": 4}), "unknown key 'rank'"),
    "other factor": (
        lambda at: _edit_config(at, adapter=settings(reduction_factor=16).to_dict()),
        r"down.weight is torch.float32 \(4, 32\), not torch.float32 \(2, 32\)",
    ),
    "no tensors": (lambda at: (at / "adapter_model.safetensors").unlink(), "safetensors cannot be read"),
    "pickled tensors": (
        lambda at: torch.save({BIAS: torch.zeros(32)}, at / "adapter_model.safetensors"),
        "safetensors cannot be read",
    ),
    "missing tensor": (lambda at: _edit_tensors(at, **{BIAS: None}), f"no tensor {BIAS}"),
    "surplus tensor": (lambda at: _edit_tensors(at, other=torch.zeros(1)), "surplus tensor other"),
    "wrong shape": (
        lambda at: _edit_tensors(at, **{BIAS: torch.zeros(31)}),
        rf"{BIAS} is torch.float32 \(31,\), not torch.float32 \(32,\)",
    ),
    "wrong dtype": (lambda at: _edit_tensors(at, **{BIAS: torch.zeros(32).long()}), f"{BIAS} is torch.int64"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_and_the_base_left_as_it_was(damage: str, tmp_path: Path) -> None:
    bottleneck.save(adapted("llama"), tmp_path)
    do, message = DAMAGES[damage]
    do(tmp_path)
    model = tiny("llama")

    with pytest.raises(BottleneckError, match=message):
        bottleneck.load(model, tmp_path)
    assert bottleneck.attached(model) == [] and hook_count(model) == hook_count(tiny("llama"))
