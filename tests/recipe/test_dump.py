"""A recipe survives being written and read again; its digest says what it decides and nothing about places."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftkit.recipe import FullRecipe, LoRARecipe, QLoRARecipe, dump_recipe, load_recipe, recipe_digest

# Words that some YAML would take for a boolean, a number, a date, nothing, an alias or a comment.
TRICKY = ["yes", "no", "on", "null", "~x", "1e-4", "010", "1_000", "2024-01-01", "0x1f", ".inf", "*a", "# b", "a: b",
          "- a", "'", '"', " a ", "ä\n\tö", "%YAML", "---", "<<", "=", "é" * 130]  # fmt: skip
words = st.sampled_from(TRICKY) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40
)
paths = st.from_regex(r"/tmp/none/[a-z]{1,9}( ?[a-z#:0-9]{1,5}){0,2}\.jsonl", fullmatch=True)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
share = st.floats(min_value=0, max_value=1, exclude_max=True)
count = st.integers(1, 10**9)
columns = st.none() | st.dictionaries(words, words, max_size=3)
sources = st.fixed_dictionaries(
    {"path": paths},
    optional={
        "format": st.sampled_from(["auto", "text", "alpaca"]),
        "columns": columns,
        "max_rows": st.none() | count,
    },
)
lora = {"rank": count, "alpha": positive, "dropout": share,
        "target_modules": st.just("all-linear") | st.lists(words, min_size=1, max_size=3)}  # fmt: skip
METHODS = {
    FullRecipe: {"parameters": st.just("all") | st.lists(words, min_size=1, max_size=3)},
    LoRARecipe: lora,
    QLoRARecipe: lora | {"quantization": st.sampled_from(["nf4", "int8"]), "double_quantization": st.booleans()},
}
any_recipe = st.sampled_from(list(METHODS)).flatmap(
    lambda recipe: st.builds(
        recipe,
        model=st.fixed_dictionaries(
            {"path": st.sampled_from(["/tmp/none/m", "org/name", "no", "1e5", "null"])},
            optional={
                "revision": st.none() | words,
                "chat_template": st.sampled_from([None, "chatml", "/a/b.jinja"]),
            },
        ),
        data=st.fixed_dictionaries(
            {"train": st.lists(sources, min_size=1, max_size=3)},
            optional={
                "validation": st.none() | share | paths,
                "columns": columns,
                "max_length": st.integers(2, 9**9),
            },
        ),
        method=st.fixed_dictionaries({}, optional=METHODS[recipe]),
        train=st.fixed_dictionaries(
            {},
            optional={
                "learning_rate": st.none() | positive,
                "warmup": share,
                "epochs": positive,
                "max_steps": st.none() | count,
                "seed": st.integers(0, 2**32 - 1),
                "gradient_checkpointing": st.booleans(),
            },
        ),
        export=st.sampled_from([None, [], "merged", [{"kind": "merged", "dtype": "float16"}]]),
        output=st.none() | words,
    )
)


def read_back(recipe, folder: Path):
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    return load_recipe(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=any_recipe)
def test_a_recipe_that_is_written_and_read_again_is_equal(tmp_path, recipe):
    again = read_back(recipe, tmp_path)

    assert again == recipe
    assert type(again) is type(recipe)
    assert recipe_digest(again) == recipe_digest(recipe)


@pytest.mark.parametrize("recipe", [FullRecipe, LoRARecipe, QLoRARecipe])
def test_a_resolved_recipe_reads_back_as_itself_and_resolves_no_further(tmp_path, recipe):
    resolved = recipe(model="m", data="/d").resolved()

    again = read_back(resolved, tmp_path)

    assert again == resolved == again.resolved()


@pytest.mark.parametrize("word", TRICKY)
def test_words_that_yaml_could_take_for_something_else_stay_words(tmp_path, word):
    recipe = LoRARecipe(model="m", data={"train": "/d", "columns": {word: word}}, output=word)

    again = read_back(recipe, tmp_path)

    assert again.output == word
    assert again.data.columns == {word: word}


def test_a_written_recipe_names_absolute_paths_so_that_it_can_be_read_from_anywhere(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "base").mkdir(parents=True)
    monkeypatch.chdir(home)
    text = dump_recipe(LoRARecipe(model="base", data=["t.jsonl"]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")

    again = load_recipe(tmp_path / "r.yaml")

    assert (again.model.path, again.data.train[0].path) == (f"{home}/base", f"{home}/t.jsonl")


# The digest


def recipe(**changes):
    return LoRARecipe(**({"model": "/a/m", "data": {"train": "/a/t.jsonl", "validation": 0.1}} | changes))


DIGEST = recipe_digest(recipe())


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "elsewhere"},
        {"model": "/b/m"},
        {"data": {"train": "/b/t.jsonl", "validation": 0.1}},
        {"method": {"rank": 16}},
        {"train": {"learning_rate": 2e-4}},
        {"export": ["adapter", "merged"]},
    ],
)
def test_places_on_disk_and_written_out_defaults_leave_the_digest_alone(changes):
    assert recipe_digest(recipe(**changes)) == DIGEST


def test_the_place_of_a_validation_file_or_a_template_leaves_the_digest_alone():
    here, there = (
        recipe(
            model={"path": "m", "chat_template": f"{place}/chat.jinja"},
            data={"train": f"{place}/t.jsonl", "validation": f"{place}/v.jsonl"},
        )
        for place in ("/a", "/b")
    )

    assert recipe_digest(here) == recipe_digest(there)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"rank": 8}},
        {"method": {"alpha": math.nextafter(32, 33)}},
        {"train": {"learning_rate": 1e-4}},
        {"train": {"seed": 1}},
        {"model": {"path": "/a/m", "dtype": "float32"}},
        {"model": {"path": "/a/m", "revision": "v2"}},
        {"model": {"path": "/a/m", "chat_template": "chatml"}},
        {"data": {"train": "/a/t.jsonl", "validation": 0.2}},
        {"data": {"train": "/a/t.jsonl", "validation": 0.1, "max_length": 9}},
        {"export": ["merged"]},
    ],
)
def test_whatever_decides_the_result_changes_the_digest(changes):
    assert recipe_digest(recipe(**changes)) != DIGEST


def test_methods_with_the_same_settings_have_different_digests():
    assert recipe_digest(QLoRARecipe(model="m", data="d")) != recipe_digest(LoRARecipe(model="m", data="d"))
