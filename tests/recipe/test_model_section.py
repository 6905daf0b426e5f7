"""The model section's tokens and template variables are checked before anything is loaded."""

from __future__ import annotations

import inspect

import pytest
from transformers import PreTrainedTokenizerBase

from ftkit.errors import RecipeError
from ftkit.recipe import ModelSection, dump_recipe, load_recipe


def recipe_file(folder, model):
    path = folder / "r.yaml"
    path.write_text(f"recipe: lora\ndata: d\nmodel:\n  path: org/name\n{model}", encoding="utf-8")
    return path


def test_variables_and_tokens_are_read_from_yaml_with_their_types(tmp_path):
    path = recipe_file(tmp_path, "  chat_template_kwargs: {a: false, b: 1, c: 1.5, d: text, e: null}\n"
                                 "  added_tokens: [<tool>, </tool>]\n")  # fmt: skip

    model = load_recipe(path).model

    values = {"a": False, "b": 1, "c": 1.5, "d": "text", "e": None}
    assert model.chat_template_kwargs == values
    assert [type(model.chat_template_kwargs[name]) for name in values] == [type(value) for value in values.values()]
    assert model.added_tokens == ("<tool>", "</tool>")


def test_variables_and_tokens_survive_being_written_out(tmp_path):
    path = recipe_file(tmp_path, "  chat_template_kwargs: {a: false, s: 'no'}\n  added_tokens: []\n")
    recipe = load_recipe(path)
    path.write_text(dump_recipe(recipe), encoding="utf-8")

    assert load_recipe(path).model == recipe.model
    assert recipe.model.added_tokens == ()


def test_a_variable_can_be_set_on_the_command_line(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path, ""), ["model.chat_template_kwargs.enable_thinking=false"])

    assert recipe.model.chat_template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("  chat_template_kwargs: {tools: x}\n",
         "6: model.chat_template_kwargs.tools: 'tools' is set for every template already"),
        ("  chat_template_kwargs: {enable-thinking: x}\n",
         "6: model.chat_template_kwargs.enable-thinking: 'enable-thinking' is not a name that a template can read"),
        ("  chat_template_kwargs: {if: x}\n",
         "6: model.chat_template_kwargs.if: 'if' is not a name that a template can read"),
        ("  added_tokens: [' <a>']\n", "6: model.added_tokens: ' <a>' begins or ends with a space"),
        ("  added_tokens: [<a>, <a>]\n", "6: model.added_tokens: '<a>' is listed twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_variable_or_a_token_is_refused_in_its_line(tmp_path, model, fault):
    path = recipe_file(tmp_path, "  dtype: auto\n" + model)

    with pytest.raises(RecipeError) as caught:
        load_recipe(path)

    assert str(caught.value) == f"{path}:{fault}"


def test_no_argument_of_apply_chat_template_can_be_taken_for_a_variable():
    arguments = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters

    assert set(arguments) - {"self", "kwargs"} <= ModelSection.RESERVED_VARIABLES
