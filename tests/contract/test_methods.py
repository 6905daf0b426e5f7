"""What every tuning method must keep. A new method adds its lines to `cases.CASES` and passes all of this."""

from __future__ import annotations

import contextlib
import copy
import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from ftkit.errors import RecipeError
from ftkit.evaluate.generation import generate, greedy_config, without_own_settings
from ftkit.evaluate.loss import summed_loss
from ftkit.files import files_in
from ftkit.methods import METHODS, FullMethod, LoRAMethod, NotMergeableError, bottleneck, method_of
from ftkit.models.load import load_model
from ftkit.models.precision import choose_precision, widen
from ftkit.recipe import RECIPES, dump_recipe, load_recipe, recipe_from_values
from tests.contract.cases import (
    BATCH,
    CASES,
    CPU,
    FAMILIES,
    IDS,
    MERGING_PAIRS,
    PAIRS,
    Case,
    is_slow,
    logits_of,
    merged_of,
    train_steps,
)
from tests.tiny import tiny_model_folder, tiny_tokenizer


def usual_family(case: Case) -> str:
    """Gemma 2, whose layers hold the most, or what comes first."""
    return "gemma2" if "gemma2" in case.families else case.families[0]


def pairs(which: list[tuple[Case, str]], *, once: bool = False) -> pytest.MarkDecorator:
    """A test for each pair; with ``once`` the families of a case show the same, and all but one are slow."""
    chosen = []
    for case, family in which:
        slow = is_slow(case, family) or (once and family != usual_family(case))
        chosen.append(pytest.param(case, family, id=f"{case.id}-{family}", marks=[pytest.mark.slow] * slow))
    return pytest.mark.parametrize(("case", "family"), chosen)


every_pair, merging_pairs = pairs(PAIRS), pairs(MERGING_PAIRS)
every_case = pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])


def is_own(case: Case, name: str) -> bool:
    """Whether a parameter is one that the case trains, told from its name alone."""
    return any(part in name for part in case.own)


def test_every_method_of_the_table_has_cases_and_the_main_ones_on_every_family():
    assert {case.settings.get("kind", case.recipe) for case in CASES} == set(METHODS)
    for recipe in RECIPES:
        assert {family for case, family in PAIRS if case.recipe == recipe} == set(FAMILIES), recipe


@every_pair
def test_only_its_own_parameters_train_and_each_receives_a_gradient(case, family, bases):
    model = case.attached(bases / family)
    own = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert own == {name for name, _ in model.named_parameters() if is_own(case, name)}
    assert own

    train_steps(model, 1)  # LoRA's A has a gradient of zero as long as B is zero: one step first
    summed_loss(model, BATCH).backward()

    for name, parameter in model.named_parameters():
        if name in own:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


@every_pair
def test_optimizer_steps_move_its_own_parameters_and_leave_every_bit_of_the_rest(case, family, bases):
    model = case.attached(bases / family)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}

    train_steps(model, 2)

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    after = model.state_dict()
    tied = set()
    if getattr(model.config, "tie_word_embeddings", False):  # one tensor, which has two names in a state dict
        tied = (
            {"lm_head.weight"}
            if case.id == "full"
            else {name for name in after if "lm_head.token_adapter.trainable" in name}
        )
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            moved = not torch.equal(value, after[name])
            assert moved == (name in trained or name in tied), name


@every_pair
def test_what_it_saves_gives_equal_logits_in_a_fresh_process(case, family, reloaded):
    pair = reloaded[case.id, family]

    if case.tolerance:
        torch.testing.assert_close(pair.trained, pair.fresh, atol=case.tolerance, rtol=0)
    else:
        assert torch.equal(pair.trained, pair.fresh)


@pairs([(case, family) for case, family in PAIRS if case.is_peft and case.recipe != "qlora"])
def test_peft_alone_gives_equal_logits_in_a_fresh_process(case, family, reloaded):
    pair = reloaded[case.id, family]

    torch.testing.assert_close(pair.trained, pair.plain, atol=1e-4, rtol=0)


@every_pair
def test_training_changed_the_logits_so_that_equality_means_something(case, family, bases, reloaded):
    base = logits_of(case.base(bases / family))

    assert (reloaded[case.id, family].trained - base).abs().max() > 1e-2


@every_pair
def test_it_saves_safetensors_and_json_alone_and_only_what_was_trained(case, family, bases, reloaded):
    folder = bases.parent / f"{case.id}__{family}"

    files = files_in(folder)
    assert {file.rsplit(".", 1)[-1] for file in files} <= {"safetensors", "json"}
    for file in files:
        if file.endswith(".json"):
            json.loads((folder / file).read_text())
        else:
            assert [name for name in load_file(folder / file) if not any(part in name for part in case.saved)] == []


@pairs([(case, usual_family(case)) for case in CASES])
def test_trained_on_a_bfloat16_base_it_gives_in_float32_what_it_saved(case, family, bases16, tmp_path):
    # Exports are measured in float32, so whatever a 16-bit base rounds on the way must not be part of the model.
    method = case.method()
    wide = method.trains_base_weights or method.needs_float32_base
    model = case.attached(bases16 / family, dtype=torch.float32 if wide else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        train_steps(model, 3, hooks=method.training_hooks(model, 10))
    widen(model)
    with method.float32_arithmetic(model):
        live = logits_of(model)
    method.save(model, tmp_path)

    again = case.method().load(case.base(bases16 / family), tmp_path)

    with method.float32_arithmetic(again):
        torch.testing.assert_close(logits_of(again), live, atol=case.tolerance or 1e-5, rtol=0)


@merging_pairs
def test_merging_gives_a_plain_model_with_the_trained_logits(case, family, bases):
    method, model = case.method(), case.attached(bases / family)
    assert method.mergeable
    train_steps(model, 3, hooks=method.training_hooks(model, 10))
    with method.float32_arithmetic(model):
        expected = logits_of(model)

    merged, in_front = merged_of(method, model, load_model(bases / family, dtype=torch.float32, device=CPU))

    width = expected.shape[-1]
    torch.testing.assert_close(logits_of(merged, in_front)[..., :width], expected, atol=1e-4, rtol=0)
    plain = load_model(bases / family, dtype=torch.float32, device=CPU)
    if in_front:  # a soft prompt: rows of its own at the end of the vocabulary, and everything else as it was
        for name, value in plain.state_dict().items():
            assert torch.equal(merged.state_dict()[name][: len(value)], value), name
        return
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert type(merged) is type(plain)
    for (name, parameter), (_, ours) in zip(plain.named_parameters(), merged.named_parameters(), strict=True):
        assert (parameter.shape, parameter.dtype) == (ours.shape, ours.dtype), name


@merging_pairs
def test_merging_leaves_the_trained_model_as_it_was(case, family, bases):
    method, model = case.method(), case.attached(bases / family)
    train_steps(model, 1)
    before = logits_of(model)

    method.merge(model, load_model(bases / family, dtype=torch.float32, device=CPU))

    assert torch.equal(logits_of(model), before)


@every_pair
def test_exact_at_init_holds_bit_for_bit(case, family, bases):
    before = logits_of(case.base(bases / family))

    assert torch.equal(logits_of(case.attached(bases / family)), before) == case.method().exact_at_init


@every_pair
def test_float32_arithmetic_is_the_usual_forward_pass_up_to_rounding_where_the_method_says_so(case, family, bases):
    method, model = case.method(), case.attached(bases / family)
    train_steps(model, 2)
    usual = logits_of(model)
    with method.float32_arithmetic(model):
        exact = logits_of(model)

    difference = (usual - exact).abs().max()
    assert difference < 1e-3 if method.exact_forward else difference < 0.2 * usual.abs().max()
    assert torch.equal(logits_of(model), usual)  # and nothing of it stays behind


@every_pair
def test_generation_with_the_key_value_cache_equals_generation_without(case, family, bases):
    method, model = case.method(), case.attached(bases / family)
    train_steps(model, 2)
    model.eval()
    config = greedy_config([0], 8)
    config.eos_token_id = None
    config.return_dict_in_generate = config.output_logits = True
    prompt = IDS[:1]
    with (
        torch.no_grad(),
        without_own_settings(model),
        method.float32_arithmetic(model),
    ):  # int8 rounds activations by what else is in the batch
        cached = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        plain = prompt.clone()
        for step in range(8):
            again = model(input_ids=plain, use_cache=False).logits[:, -1]
            torch.testing.assert_close(cached.logits[step], again, atol=1e-3, rtol=1e-4)
            plain = torch.cat([plain, again.argmax(-1, keepdim=True)], dim=1)

    assert torch.equal(cached.sequences, plain)


@every_pair
def test_an_answer_does_not_depend_on_the_prompts_that_are_answered_beside_it(case, family, bases):
    method, model = case.method(), case.attached(bases / family)
    train_steps(model, 2)
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist(), IDS[2, :3].tolist(), IDS[0, :5].tolist()]

    def answers(group: list[list[int]]) -> list[str]:
        found = generate(
            model, group, tiny_tokenizer(), stop_token_ids=[0], max_new_tokens=6, pads_prompts=method.pads_prompts
        )
        return [answer.text for answer in found]

    with method.float32_arithmetic(model):
        assert answers(prompts) == [answers([prompt])[0] for prompt in prompts]


@pairs([(case, family) for case, family in PAIRS if case.recipe != "full"], once=True)  # full changes the base itself
def test_two_adapters_on_one_base_do_not_disturb_each_other(case, family, bases, tmp_path):
    alone = []
    for index in range(2):
        method, model = case.method(), case.attached(bases / family, seed=index)
        train_steps(model, 1 + index)
        method.save(model, tmp_path / str(index))
        alone.append(logits_of(case.method().load(case.base(bases / family), tmp_path / str(index))))
    base = case.base(bases / family)
    untouched = logits_of(base)

    if case.is_peft:
        both = case.method().load(base, tmp_path / "0")
        both.load_adapter(tmp_path / "1", adapter_name="second")
        choose, off = both.set_adapter, both.disable_adapter
    else:
        both = bottleneck.load(base, tmp_path / "0", name="default")
        bottleneck.load(base, tmp_path / "1", name="second")
        choose = functools.partial(bottleneck.set_active, both)
        off = functools.partial(_switched_off, both)
    for name, expected in (("default", alone[0]), ("second", alone[1]), ("default", alone[0])):
        choose(name)
        assert torch.equal(logits_of(both), expected), name
    with off():
        assert torch.equal(logits_of(both), untouched)
    assert not torch.equal(alone[0], alone[1])


@contextlib.contextmanager
def _switched_off(model):
    bottleneck.set_active(model, None)
    yield


@pairs([(case, family) for case, family in PAIRS if not case.merges])
def test_what_cannot_be_merged_says_so_in_the_recipe_and_in_the_method(case, family, bases):
    with pytest.raises(NotMergeableError):
        case.method().merge(
            case.attached(bases / family), load_model(bases / family, dtype=torch.float32, device=CPU)
        )

    values = {"recipe": case.recipe, "model": "m", "data": "d", "method": case.settings, "export": ["merged"]}
    with pytest.raises(RecipeError, match=f"{case.recipe} has no 'merged' export; it has 'adapter': .{{20}}"):
        recipe_from_values(values, lambda _: "r.yaml:1")


@pairs(PAIRS, once=True)
def test_a_validation_before_training_does_not_change_the_gradients(case, family, bases):
    # bitsandbytes repacks 4-bit weights at the first forward pass in eval mode, and repacked ones pass no gradients
    # on; `prepare` prevents it.
    def gradients(*, validate: bool) -> dict[str, torch.Tensor]:
        model = case.attached(bases / family)
        if validate:
            logits_of(model)
        train_steps(model, 1)
        summed_loss(model, BATCH).backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    without, after = gradients(validate=False), gradients(validate=True)

    assert without.keys() == after.keys()
    assert all(torch.equal(without[name], after[name]) for name in without)


@every_case
def test_its_settings_survive_a_recipe_file(case, tmp_path):
    recipe = case.as_recipe()
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))

    read = load_recipe(tmp_path / "recipe.yaml")

    assert read.method == recipe.method
    again = method_of(read)
    again.bind(tiny_tokenizer())
    assert vars(again) == vars(case.method())


@pytest.mark.parametrize("recipe", ["full", "lora", "qlora", "vera"])
def test_names_that_match_nothing_are_refused_with_what_exists(recipe, bases):
    key = "parameters" if recipe == "full" else "target_modules"
    settings = {key: ["q_prj", "down_proj"] if recipe != "full" else ["model.layer.1.*"]}
    case = Case("typo", recipe, settings) if recipe != "vera" else Case("typo", "lora", {"kind": "vera", **settings})

    with pytest.raises(RecipeError) as caught:
        case.attached(bases / "llama")

    message = str(caught.value)
    if recipe == "full":
        assert "method.parameters: 'model.layer.1.*' matches no parameter of this model" in message
        assert "model.layers.*.self_attn.q_proj.weight" in message
    else:
        assert "method.target_modules: 'q_prj' matches no layer of this model" in message
        assert "Did you mean 'q_proj'? " in message
        assert "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in message
        assert "'down_proj' matches" not in message


def test_every_wrong_layer_name_is_listed_in_one_pass(bases):
    with pytest.raises(RecipeError) as caught:
        LoRAMethod(target_modules=("q_prj", "v_prj")).attach(
            load_model(bases / "llama", dtype=torch.float32, device=CPU)
        )

    assert len(caught.value.problems) == 2


def test_float32_master_weights_move_by_updates_that_bfloat16_weights_would_swallow(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", dtype="bfloat16")
    held = choose_precision(
        "bfloat16", checkpoint="bfloat16", device=CPU, master_weights=FullMethod.trains_base_weights
    )
    assert (held.weights, held.compute) == (torch.float32, torch.bfloat16)

    def moved(dtype: torch.dtype) -> float:
        model = FullMethod().attach(load_model(folder, dtype=dtype, device=CPU))
        norm = model.model.norm.weight  # ones: the next bfloat16 below is 1/256 away
        before = norm.detach().clone()
        train_steps(model, 4, learning_rate=1e-5)
        return (norm.detach() - before).abs().max().item()

    assert moved(held.weights) == pytest.approx(4e-5, rel=0.3)
    assert moved(torch.bfloat16) == 0.0


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_an_adapter_is_float32_on_a_bfloat16_base(quantization, bases):
    case = Case("lora", "lora") if quantization is None else Case("qlora", "qlora", {"quantization": quantization})
    method = case.method()
    base = load_model(
        bases / "llama", dtype=torch.bfloat16, device=CPU, quantization_config=method.quantization(torch.bfloat16)
    )
    model = method.attach(method.prepare(base))

    assert {value.dtype for value in model.parameters() if value.requires_grad} == {torch.float32}


def test_merging_a_lora_is_base_plus_scaled_b_times_a(bases):
    method = LoRAMethod(rank=2, alpha=6, target_modules=("q_proj",))
    fresh = load_model(bases / "llama", dtype=torch.float32, device=CPU)
    weight = fresh.model.layers[1].self_attn.q_proj.weight.detach().clone()
    model = method.attach(copy.deepcopy(fresh))
    train_steps(model, 2)
    layer = model.base_model.model.model.layers[1].self_attn.q_proj

    merged = method.merge(model, fresh)

    expected = weight + 6 / 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(merged.model.layers[1].self_attn.q_proj.weight, expected, atol=1e-6, rtol=0)
    assert torch.equal(merged.model.layers[1].self_attn.k_proj.weight, fresh.model.layers[1].self_attn.k_proj.weight)


def test_weights_of_another_model_are_refused(bases, tmp_path):
    FullMethod().save(FullMethod().attach(load_model(bases / "gpt2", dtype=torch.float32, device=CPU)), tmp_path)

    with pytest.raises(ValueError, match="belong to another model"):
        FullMethod().load(load_model(bases / "llama", dtype=torch.float32, device=CPU), tmp_path)
