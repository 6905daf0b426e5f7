"""The JSON schema accepts what ftkit accepts, and documents every key."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from ftkit.recipe import RECIPES, FullRecipe, LoRARecipe, QLoRARecipe, dump_recipe, json_schema, load_recipe
from ftkit.recipe.base import Section
from ftkit.recipe.load import _section_in
from ftkit.recipe.shipped import recipes_folder
from ftkit.recipe.yaml12 import parse_yaml, read_yaml

SHIPPED = sorted(recipes_folder().glob("*.yaml"))


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def sections(recipe: type[Section]) -> list[type[Section]]:
    found = [recipe]
    for section in found:
        inner = [_section_in(field.annotation) for field in section.model_fields.values()]
        found += [one for one in inner if one is not None and one not in found]
    return found


def objects(schema) -> dict[str, dict]:
    """Every object schema by its title, wherever it stands."""
    if isinstance(schema, list):
        return {name: found for item in schema for name, found in objects(item).items()}
    if not isinstance(schema, dict):
        return {}
    own = {schema["title"]: schema["properties"]} if "properties" in schema else {}
    return own | objects(list(schema.values()))


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_the_schema_holds_every_key_of_every_section(recipe):
    described = objects(json_schema())

    for section in sections(recipe):
        assert set(described[section.__name__]) == set(section.model_fields)


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_every_key_is_documented(recipe):
    undocumented = [
        f"{section.__name__}.{name}"
        for section in sections(recipe)
        for name, field in section.model_fields.items()
        # A section documents itself, and `recipe` is documented on the base class.
        if not field.description and _section_in(field.annotation) is None and name != "recipe"
    ]

    assert undocumented == []


@pytest.mark.parametrize("recipe", [FullRecipe, LoRARecipe, QLoRARecipe])
def test_a_resolved_recipe_as_ftkit_writes_it_is_valid(validator, recipe):
    written = parse_yaml(dump_recipe(recipe(model="m", data="d").resolved()), "r.yaml").values

    assert [error.message for error in validator.iter_errors(written)] == []


@pytest.mark.parametrize(
    "short",
    [
        {"recipe": "lora", "model": "m", "data": "d"},
        {"recipe": "full", "model": "m", "data": ["a", {"path": "b"}], "export": "merged"},
        {
            "recipe": "qlora",
            "model": {"path": "m"},
            "data": {"train": "a"},
            "export": ["adapter", {"kind": "merged"}],
        },
        {"recipe": "lora", "model": "m", "data": "d", "method": {"target_modules": ["q_proj"]}},
        {"recipe": "lora", "model": "m", "data": {"train": {"path": "a"}, "validation": None}, "export": None},
    ],
)
def test_the_short_forms_are_valid_too(validator, short, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps(short), encoding="utf-8")  # JSON is YAML

    load_recipe(tmp_path / "r.yaml")
    assert [error.message for error in validator.iter_errors(short)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipe": "lora", "model": "m"},
        {"recipe": "loar", "model": "m", "data": "d"},
        {"recipe": "lora", "model": "m", "data": "d", "trian": {}},
        {"recipe": "lora", "model": "m", "data": "d", "train": {"epohcs": 1}},
        {"recipe": "lora", "model": "m", "data": "d", "method": {"rank": 0}},
        {"recipe": "full", "model": "m", "data": "d", "method": {"rank": 8}},
        {"recipe": "lora", "model": "m", "data": {"train": []}},
        {"recipe": "lora", "model": 3, "data": "d"},
    ],
)
def test_what_ftkit_refuses_is_not_valid(validator, wrong):
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: Path(path).stem)
def test_shipped_recipes_are_valid_and_can_be_loaded(validator, path):
    load_recipe(path)

    assert [error.message for error in validator.iter_errors(read_yaml(path).values)] == []
