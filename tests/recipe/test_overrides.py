"""Overrides change a recipe's values, keep what they do not name, and are named when they are wrong."""

from __future__ import annotations

from typing import get_args

import pytest

from ftkit.errors import RecipeError
from ftkit.recipe import load_recipe
from ftkit.recipe.overrides import apply_overrides
from ftkit.recipe.sections import ExportKind

KINDS = " or ".join([", ".join(map(repr, get_args(ExportKind)[:-1])), repr(get_args(ExportKind)[-1])])

RECIPE = """\
recipe: lora
model: {path: /m, dtype: float32}
data:
  train: /d.jsonl
  validation: 0.25
  max_length: 64
train: {seed: 3, batch_size: 6}
"""


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return lambda *overrides: load_recipe(path, overrides)


@pytest.fixture
def fault(load, tmp_path):
    def report(*overrides):
        with pytest.raises(RecipeError) as caught:
            load(*overrides)
        return [str(problem).splitlines()[0].replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return report


def test_an_override_sets_one_value_and_leaves_the_others(load):
    recipe = load("train.learning_rate=1e-4")

    assert (recipe.train.learning_rate, recipe.train.seed, recipe.train.batch_size) == (0.0001, 3, 6)


def test_an_override_may_be_a_list_or_a_mapping(load):
    recipe = load("export=[adapter]", "method={rank: 4, target_modules: [q_proj]}")

    assert [export.kind for export in recipe.export] == ["adapter"]
    assert (recipe.method.rank, recipe.method.target_modules) == (4, ("q_proj",))


def test_an_override_makes_a_section_that_the_file_lacks(load):
    assert load("evaluate.samples=9").evaluate.samples == 9


def test_a_tilde_removes_a_key_so_that_its_default_holds(load):
    assert load().data.validation == 0.25
    assert load("~data.validation").data.validation == 0.05


def test_removing_a_key_that_is_not_there_changes_nothing(load):
    assert load("~train.epochs") == load()


def test_the_last_of_two_overrides_of_a_key_wins(load):
    assert load("train.seed=1", "train.seed=2").train.seed == 2


def test_model_and_data_set_the_sections_obvious_key_and_keep_its_others(load):
    recipe = load("model=/other", "data=/other.jsonl")

    assert (recipe.model.path, recipe.model.dtype) == ("/other", "float32")
    assert [source.path for source in recipe.data.train] == ["/other.jsonl"]
    assert (recipe.data.validation, recipe.data.max_length) == (0.25, 64)


def test_data_may_be_overridden_with_several_files(load):
    recipe = load("data=[/a.jsonl, /b.jsonl]")

    assert [source.path for source in recipe.data.train] == ["/a.jsonl", "/b.jsonl"]
    assert recipe.data.max_length == 64


def test_a_mapping_replaces_the_whole_section(load):
    assert load("model={path: /other}").model.dtype == "auto"


def test_a_key_can_be_set_in_a_section_that_is_written_as_a_bare_string(tmp_path):
    path = tmp_path / "bare.yaml"
    path.write_text("recipe: lora\nmodel: /m\ndata: /d.jsonl\n", encoding="utf-8")

    recipe = load_recipe(path, ["model.dtype=float16", "data.max_length=9"])

    assert (recipe.model.path, recipe.model.dtype) == ("/m", "float16")
    assert (recipe.data.train[0].path, recipe.data.max_length) == ("/d.jsonl", 9)


def test_overridden_paths_are_taken_from_the_current_folder(load, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "base").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))

    recipe = load("model=base", "data=t.jsonl", "data.validation=~/v.jsonl")

    assert recipe.model.path == f"{here}/base"
    assert recipe.data.train[0].path == f"{here}/t.jsonl"
    assert recipe.data.validation == f"{tmp_path}/v.jsonl"


@pytest.mark.parametrize("override", ["model", "=x", "~model=3", "train..seed=1", ".seed=1", "train.=1", "~", ""])
def test_what_is_neither_a_setting_nor_a_removal_is_refused(fault, override):
    assert fault(override) == [f"override {override!r}: is not of the form key=value or ~key"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=many", "train.epochs: should be a number, not 'many'"),
        ("train.epohcs=1", "train.epohcs: unknown key"),
        ("trian.epochs=1", "trian: unknown key"),
        ("train.seed=", "train.seed: should be a whole number, not None"),
        ("train.seed=[1", "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("train.seed.x=1", "seed is a value, not a section"),
        ("recipe=loar", "recipe: 'loar' is not a recipe"),
        ("~recipe", "recipe: is required and not given"),
        ("~model.path", "model.path: is required and not given"),
        ("export=[ggml]", f"export.0: should be {KINDS}, not 'ggml'"),
        ("data=[{pth: x}]", "data.train.0.path: is required and not given"),
        ("data.streaming=true",
         "data.streaming: streaming data has no length, so train.max_steps must say when training ends"),
        ("train.micro_batch_size=4",
         "train.micro_batch_size: micro_batch_size 4 does not divide batch_size 6"),
    ],
)  # fmt: skip
def test_a_fault_that_an_override_caused_names_the_override(fault, override, expected):
    assert fault(override)[0] == f"override {override!r}: {expected}"


def test_a_clash_names_whichever_of_the_two_keys_was_overridden(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE + "export: [adapter]\n", encoding="utf-8")

    with pytest.raises(RecipeError, match=r"^override 'recipe=full': recipe: full has no 'adapter' export"):
        load_recipe(path, ["recipe=full"])


def test_a_fault_of_the_file_is_not_blamed_on_an_override_beside_it(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE + "method: {rank: 0}\n", encoding="utf-8")

    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["method.alpha=8", "train.seed=4"])

    assert str(caught.value) == f"{path}:8: method.rank: should be greater than or equal to 1, not 0"


def test_all_malformed_overrides_are_reported_together(fault):
    assert fault("model", "train.seed=[1", "recipe.x=1") == [
        "override 'model': is not of the form key=value or ~key",
        "override 'train.seed=[1': not YAML: expected ',' or ']', but got '<stream end>'",
        "override 'recipe.x=1': recipe is a value, not a section",
    ]


def test_the_values_given_are_not_changed_in_place():
    values = {"recipe": "lora", "train": {"seed": 3}}

    changed, origins = apply_overrides(values, ["train.seed=4", "~recipe"])

    assert values == {"recipe": "lora", "train": {"seed": 3}}
    assert changed == {"train": {"seed": 4}}
    assert origins == {("train", "seed"): "train.seed=4", ("recipe",): "~recipe"}
