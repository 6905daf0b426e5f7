"""Settings of methods that cannot work are refused when the recipe is read, at their line and with the reason."""

from __future__ import annotations

import textwrap

import jsonschema
import pytest

from ftkit.errors import RecipeError
from ftkit.recipe import FAMILY, RECIPES, LoRARecipe, LoRASettings, json_schema, load_recipe, recipe_from_values

HEAD = "recipe: {recipe}\nmodel: org/name\ndata: rows.jsonl\n"  # three lines: what a test writes begins at line 4
KINDS = ["lora", *FAMILY]
# Settings that every kind of the family and every other recipe takes, one of its own keys among them.
SMALL = {
    "lora": {"kind": "lora", "rank": 4},
    "adalora": {"kind": "adalora", "target_rank": 2, "initial_rank": 4},
    "vera": {"kind": "vera", "initial_scale": 0.2},
    "ia3": {"kind": "ia3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "oft": {"kind": "oft", "block_size": 8},
    "loha": {"kind": "loha", "alpha": 4},
    "lokr": {"kind": "lokr", "decompose_factor": 4},
}
SMALL_OF_OTHERS = {
    "full": {"parameters": ["model.layers.1.*"]},
    "qlora": {"quantization": "int8", "rank_pattern": {"q_proj": 2}},
    "prefix": {"init": "text", "init_text": "a b", "num_virtual_tokens": 3},
    "prompt": {"init": "random"},
    "adapter": {"architecture": "parallel", "scaling": 4},
}


def faults(folder, recipe, text):
    """What loading reports: ``6: method.rank: ...``, the number being the line."""
    path = folder / "r.yaml"
    path.write_text(HEAD.format(recipe=recipe) + textwrap.dedent(text), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


# Exports and training that a method has no way to do


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("prefix", "learned keys and values are no weights of the base's architecture"),
        ("adapter", "a bottleneck has a non-linearity inside, which no matrix of the base can hold"),
    ],
)
@pytest.mark.parametrize("wanted", ["merged", "[adapter, merged]", "{kind: merged, dtype: bfloat16}"])
def test_a_merged_export_of_what_cannot_be_merged_is_refused_with_the_reason(tmp_path, recipe, reason, wanted):
    assert faults(tmp_path, recipe, f"export: {wanted}\n") == [
        f"4: export: {recipe} has no 'merged' export; it has 'adapter': {reason}"
    ]


def test_a_prefix_is_not_trained_with_gradient_checkpointing(tmp_path):
    assert faults(tmp_path, "prefix", "train:\n  epochs: 1\n  gradient_checkpointing: true\n") == [
        "6: train.gradient_checkpointing: prefix cannot be trained with gradient_checkpointing: the prefix travels "
        "in the key-value cache, which recomputing a layer would fill twice; use a lower micro_batch_size"
    ]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "prefix"])
def test_every_other_method_is_trained_with_gradient_checkpointing_if_asked(recipe):
    made = RECIPES[recipe].model_validate(
        {"recipe": recipe, "model": "m", "data": "d", "train": {"gradient_checkpointing": True}}
    )

    assert made.train.gradient_checkpointing


@pytest.mark.parametrize("recipe", ["prefix", "prompt"])
def test_packing_is_refused_for_soft_prompts(tmp_path, recipe):
    path = tmp_path / "r.yaml"
    path.write_text(f"recipe: {recipe}\nmodel: m\ndata:\n  train: d\n  packing: true\n", encoding="utf-8")

    with pytest.raises(RecipeError) as caught:
        load_recipe(path)

    assert str(caught.value) == (
        f"{path}:5: data.packing: {recipe} cannot be trained with packing: its virtual tokens stand before a "
        "sequence, not before each example inside of one; use auto or false"
    )


@pytest.mark.parametrize("recipe", ["full", "lora", "qlora", "adapter"])
def test_other_methods_may_be_asked_to_pack(tmp_path, recipe):
    path = tmp_path / "r.yaml"
    path.write_text(f"recipe: {recipe}\nmodel: m\ndata:\n  train: d\n  packing: true\n", encoding="utf-8")

    assert load_recipe(path).data.packing is True


# Single settings


@pytest.mark.parametrize(
    ("recipe", "method", "fault"),
    [
        # soft prompts
        ("prefix", "  num_virtual_tokens: 0\n",
         "5: method.num_virtual_tokens: should be greater than or equal to 1, not 0"),
        ("prompt", "  num_virtual_tokens: 0\n",
         "5: method.num_virtual_tokens: should be greater than or equal to 1, not 0"),
        ("prefix", "  init: text\n", "4: method.init_text: init: text needs an init_text with words in it"),
        ("prompt", "  init: text\n", "4: method.init_text: init: text needs an init_text with words in it"),
        ("prompt", "  init: text\n  init_text: '  '\n",
         "6: method.init_text: init: text needs an init_text with words in it"),
        ("prefix", "  init: text\n  init_text: ''\n",
         "6: method.init_text: String should have at least 1 character, not ''"),
        ("prefix", "  num_virtual_tokens: 4\n  init_text: hello\n",
         "6: method.init_text: init_text is read only with init: text, not with data"),
        ("prompt", "  init: vocabulary\n  init_text: hello\n",
         "6: method.init_text: init_text is read only with init: text, not with vocabulary"),
        ("prompt", "  init: random\n  init_text: hello\n",
         "6: method.init_text: init_text is read only with init: text, not with random"),
        ("prompt", "  init: data\n", "5: method.init: should be 'vocabulary', 'text' or 'random', not 'data'"),
        ("prefix", "  prefix_projection: true\n  init: data\n",
         "6: method.init: init: data names keys and values, and a projection cannot be solved for them; use init: "
         "random, or prefix_projection: false"),
        ("prefix", "  prefix_projection: true\n  init: text\n  init_text: hello\n",
         "6: method.init: init: text names keys and values, and a projection cannot be solved for them; use init: "
         "random, or prefix_projection: false"),
        ("prefix", "  encoder_hidden_size: 16\n",
         "5: method.encoder_hidden_size: encoder_hidden_size is the width of the projection; set prefix_projection: "
         "true"),
        # bottleneck adapters
        ("adapter", "  reduction_factor: 0\n", "5: method.reduction_factor: should be greater than 0, not 0"),
        ("adapter", "  dropout: 1.0\n", "5: method.dropout: should be less than 1, not 1.0"),
        ("adapter", "  architecture: houlsbi\n",
         "5: method.architecture: should be 'houlsby', 'pfeiffer' or 'parallel', not 'houlsbi'"),
        # LoRA
        ("lora", "  rank: 0\n", "5: method.rank: should be greater than or equal to 1, not 0"),
        ("lora", "  rank_pattern: {q_proj: 0}\n",
         "5: method.rank_pattern.q_proj: should be greater than or equal to 1, not 0"),
        ("lora", "  rank_pattern:\n    k_proj: 2\n    q_proj: 1.5\n",
         "7: method.rank_pattern.q_proj: should be a whole number, not 1.5"),
        ("lora", "  alpha_pattern: {q_proj: 0}\n", "5: method.alpha_pattern.q_proj: should be greater than 0, not 0"),
        ("lora", "  loraplus_lr_ratio: 0.5\n",
         "5: method.loraplus_lr_ratio: should be greater than or equal to 1, not 0.5"),
        ("lora", "  init: loftq\n",
         "5: method.init: should be 'default', 'gaussian', 'pissa', 'olora' or 'eva', not 'loftq'"),
        ("lora", "  trainable_tokens: [<a>]\n  modules_to_save: [embed_tokens]\n",
         "5: method.trainable_tokens: trainable_tokens trains rows of a module that modules_to_save trains as a "
         "whole; keep one"),
        ("qlora", "  modules_to_save: [lm_head]\n  trainable_tokens: [<a>]\n",
         "6: method.trainable_tokens: trainable_tokens trains rows of a module that modules_to_save trains as a "
         "whole; keep one"),
        # QLoRA
        ("qlora", "  init: pissa\n",
         "5: method.init: init: pissa takes its matrices out of the base's weights, and what is left does not "
         "survive quantising exactly; use init: loftq, or recipe: lora"),
        ("qlora", "  init: olora\n",
         "5: method.init: init: olora takes its matrices out of the base's weights, and what is left does not "
         "survive quantising exactly; use init: loftq, or recipe: lora"),
        ("qlora", "  quantization: int8\n  init: loftq\n",
         "6: method.init: init: loftq makes good what 4 bits lose; use quantization: nf4"),
        ("qlora", "  quantization: int8\n  use_dora: true\n",
         "6: method.use_dora: DoRA needs the length of each column, and PEFT cannot read the columns of an int8 "
         "layer; use quantization: nf4"),
        ("qlora", "  use_dora: true\n  init: loftq\n",
         "6: method.init: init: loftq starts beside the base, and DoRA's lengths are taken from the base alone; use "
         "one"),
        # LoRA's relatives
        ("lora", "  kind: adalora\n  initial_rank: 8\n  target_rank: 8\n",
         "6: method.initial_rank: initial_rank 8 is not above target_rank 8; ranks only fall"),
        ("lora", "  kind: adalora\n  warmup_share: 0.6\n  final_share: 0.4\n",
         "6: method.warmup_share: warmup_share and final_share leave no step in which ranks can fall"),
        ("lora", "  kind: ia3\n  feedforward_modules: [down_proj]\n",
         "6: method.feedforward_modules: target_modules and feedforward_modules go together: name both, or neither"),
        ("lora", "  kind: ia3\n  target_modules: [k_proj]\n",
         "4: method.feedforward_modules: target_modules and feedforward_modules go together: name both, or neither"),
        ("lora", "  kind: ia3\n  target_modules: [k_proj]\n  feedforward_modules: [up_proj, down_proj]\n",
         "7: method.feedforward_modules: up_proj, down_proj: not among target_modules"),
        ("lora", "  kind: oft\n  block_size: 1\n",
         "6: method.block_size: should be greater than or equal to 2, not 1"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_refused_in_its_line_with_the_reason(tmp_path, recipe, method, fault):
    assert faults(tmp_path, recipe, "method:\n" + method) == [fault]


def test_every_fault_of_a_method_is_told_in_one_pass(tmp_path):
    assert faults(tmp_path, "lora", "method:\n  rank: 0\n  alpha: -1\n  drpout: 0.1\n") == [
        "5: method.rank: should be greater than or equal to 1, not 0",
        "6: method.alpha: should be greater than 0, not -1",
        "7: method.drpout: unknown key\n  Did you mean 'dropout'?",
    ]


def test_an_override_that_clashes_with_the_file_is_the_one_that_is_named(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(HEAD.format(recipe="qlora") + "method: {use_dora: true}\n", encoding="utf-8")

    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["method.quantization=int8"])

    assert str(caught.value).startswith(
        "override 'method.quantization=int8': method.quantization: DoRA needs the length of each column"
    )


# Kinds of LoRA


def test_a_method_without_a_kind_is_lora():
    written = recipe_from_values({"recipe": "lora", "model": "m", "data": "d", "method": {"rank": 4}}, str)

    assert written == LoRARecipe(model="m", data="d", method=LoRASettings(kind="lora", rank=4))
    assert LoRARecipe(model="m", data="d").method == LoRASettings()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_chooses_its_own_settings(kind):
    recipe = recipe_from_values({"recipe": "lora", "model": "m", "data": "d", "method": SMALL[kind]}, str)

    assert type(recipe.method) is {"lora": LoRASettings, **FAMILY}[kind]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in SMALL[kind].items()}
    assert given.items() <= recipe.method.model_dump().items()


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path):
    assert faults(tmp_path, "lora", "method:\n  rank: 4\n  kind: adalor\n") == [
        "6: method.kind: 'adalor' is no kind of lora\n  Did you mean 'adalora'?"
    ]


def test_an_unknown_kind_near_to_none_is_refused_with_all_of_them(tmp_path):
    assert faults(tmp_path, "lora", "method: {kind: xyz}\n") == [
        "4: method.kind: 'xyz' is no kind of lora\n  Known kinds: lora, adalora, vera, ia3, oft, loha, lokr."
    ]


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("lora", "rank, alpha, dropout, target_modules, rank_pattern, alpha_pattern, use_rslora, use_dora, "
                 "loraplus_lr_ratio, modules_to_save, trainable_tokens, kind, init"),
        ("adalora", "kind, target_rank, initial_rank, alpha, dropout, target_modules, warmup_share, final_share, "
                    "allocation_every, orthogonality_weight"),
        ("vera", "kind, rank, initial_scale, dropout, target_modules"),
        ("ia3", "kind, target_modules, feedforward_modules"),
        ("oft", "kind, block_size, target_modules"),
        ("loha", "kind, rank, alpha, target_modules"),
        ("lokr", "kind, rank, alpha, decompose_factor, target_modules"),
    ],
)  # fmt: skip
def test_an_unknown_key_inside_a_kind_is_answered_with_that_kinds_keys(tmp_path, kind, known):
    written = "  ".join(f"{key}: {value}\n" for key, value in SMALL[kind].items())

    assert faults(tmp_path, "lora", f"method:\n  {written}  zzz: 1\n") == [
        f"{5 + len(SMALL[kind])}: method.zzz: unknown key\n  Known keys: {known}."
    ]


def test_a_key_of_another_kind_is_unknown(tmp_path):
    assert faults(tmp_path, "lora", "method:\n  kind: vera\n  alpha: 4\n") == [
        "6: method.alpha: unknown key\n  Known keys: kind, rank, initial_scale, dropout, target_modules."
    ]


# Editors


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json_schema())


EVERY = [("lora", SMALL[kind]) for kind in KINDS] + list(SMALL_OF_OTHERS.items())
every_method = pytest.mark.parametrize(
    ("recipe", "method"), EVERY, ids=[method.get("kind", recipe) for recipe, method in EVERY]
)


@every_method
def test_the_schema_accepts_each_method_as_ftkit_does(validator, recipe, method):
    values = {"recipe": recipe, "model": "m", "data": "d", "method": method}

    recipe_from_values(values, str)
    assert [error.message for error in validator.iter_errors(values)] == []


@every_method
def test_the_schema_refuses_a_key_that_the_method_does_not_have(validator, recipe, method):
    values = {"recipe": recipe, "model": "m", "data": "d", "method": {**method, "zzz": 1}}

    with pytest.raises(RecipeError, match=r"method\.zzz: unknown key"):
        recipe_from_values(values, str)
    assert not validator.is_valid(values)


def test_the_schema_refuses_an_unknown_kind(validator):
    assert not validator.is_valid({"recipe": "lora", "model": "m", "data": "d", "method": {"kind": "adalor"}})


def test_the_schema_accepts_a_method_without_its_kind(validator):
    assert validator.is_valid({"recipe": "lora", "model": "m", "data": "d", "method": {"rank": 4}})
