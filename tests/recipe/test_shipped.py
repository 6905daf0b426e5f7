"""Shipped recipes can be listed, found by name, and copied together with their data."""

from __future__ import annotations

import pytest

from ftkit.errors import OutputError, UsageError
from ftkit.nearest import did_you_mean, nearest
from ftkit.recipe import RECIPES, copy_recipe, find_recipe, load_recipe, shipped, shipped_recipes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two recipes in place of the shipped ones."""
    folder = tmp_path / "shipped"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "t.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "quick.yaml").write_text(
        "# LoRA in a minute.\n# More.\nrecipe: lora\nmodel: smollm2-135m\ndata: data/t.jsonl\n", encoding="utf-8"
    )
    (folder / "whole.yaml").write_text("recipe: full\nmodel: smollm2-135m\ndata: /d.jsonl\n", encoding="utf-8")
    monkeypatch.setattr(shipped, "recipes_folder", lambda: folder)
    return folder


def test_the_list_tells_name_method_and_the_first_comment(folder):
    found = [(recipe.name, recipe.method.recipe, recipe.about) for recipe in shipped_recipes()]

    assert found == [("quick", "lora", "LoRA in a minute."), ("whole", "full", "")]


def test_a_shipped_recipe_is_found_by_its_name_and_a_file_by_its_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole").write_text("", encoding="utf-8")

    assert find_recipe("quick") == folder / "quick.yaml"
    assert str(find_recipe("whole")) == "whole"  # what stands in the current folder comes first
    assert str(find_recipe("quick.yaml")) == "quick.yaml"
    assert str(find_recipe("none")) == "none"


def test_a_copy_brings_the_data_along_and_can_be_loaded(folder, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()

    written = copy_recipe("quick", target)

    assert written == [target / "quick.yaml", target / "data" / "t.jsonl"]
    assert load_recipe(target / "quick.yaml").data.train[0].path == str(target / "data" / "t.jsonl")


def test_a_copy_overwrites_nothing_and_then_writes_nothing(folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.jsonl").write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match="already there"):
        copy_recipe("quick", tmp_path / "r.yaml")

    assert not (tmp_path / "r.yaml").exists()
    assert (tmp_path / "data" / "t.jsonl").read_text(encoding="utf-8") == "mine"


def test_an_unknown_name_gets_the_nearest_shipped_one(folder, tmp_path):
    with pytest.raises(UsageError, match=r"'quikc' is not a shipped recipe\n  Did you mean 'quick'\?"):
        copy_recipe("quikc", tmp_path)


def test_the_nearest_word_is_a_likely_one_or_none():
    assert nearest("epohcs", ["epochs", "seed"]) == "epochs"
    assert nearest("xyzzy", ["epochs", "seed"]) is None
    assert did_you_mean("xyzzy", ["epochs", "seed"], what="Known keys") == "Known keys: epochs, seed."


def test_every_recipe_ships_as_a_file_of_its_name():
    shipped_by_name = {recipe.name: recipe.method.recipe for recipe in shipped_recipes()}

    assert shipped_by_name == {name: name for name in RECIPES} | {"quickstart": "lora"}
    assert all(recipe.about.endswith(".") for recipe in shipped_recipes())


@pytest.mark.parametrize(
    ("name", "settings", "learning_rate", "exports"),
    [
        ("prefix", {"num_virtual_tokens": 20, "init": "data"}, 1e-2, ["adapter"]),
        ("prompt", {"num_virtual_tokens": 20, "init": "vocabulary"}, 3e-2, ["adapter", "merged"]),
        ("adapter", {"architecture": "houlsby", "reduction_factor": 16}, 1e-3, ["adapter"]),
    ],
)
def test_the_recipes_that_leave_the_base_as_it_is_train_on_the_shipped_data(name, settings, learning_rate, exports):
    recipe = load_recipe(find_recipe(name))

    assert {key: getattr(recipe.method, key) for key in settings} == settings
    assert recipe.train.learning_rate == learning_rate
    assert recipe.data.train[0].path.endswith("data/shop_tickets_train.jsonl")
    assert [export.kind for export in recipe.export] == exports
    assert recipe.output == f"runs/{name}"


def test_a_shipped_recipe_brings_its_methods_facts(folder):
    (folder / "vera.yaml").write_text(
        "recipe: lora\nmodel: smollm2-135m\ndata: data/t.jsonl\nmethod: {kind: vera}\n", encoding="utf-8"
    )

    quick, vera, whole = (recipe.method for recipe in shipped_recipes())

    assert (quick.name, quick.mergeable, quick.trainable_share) == ("lora", True, 0.036)
    assert (vera.name, vera.mergeable, vera.trainable_share) == ("lora (kind: vera)", True, 0.0016)
    assert (whole.name, whole.mergeable, whole.trainable_share) == ("full", True, 1.0)
