"""``recipe: hybrid`` is as strict as the others, and its paths are those of its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftkit.errors import RecipeError
from ftkit.recipe import decisive_values, dump_recipe, load_hybrid_recipe, load_recipe, recipe_digest

RECIPE = """\
recipe: hybrid
members:
  a: runs/a
  b: {path: smollm2-135m, index: docs-index, retrieval: lexical}
data: questions.jsonl
"""


def written(folder, text=RECIPE):
    (folder / "runs" / "a").mkdir(parents=True, exist_ok=True)
    (folder / "docs-index").mkdir(exist_ok=True)
    (folder / "hybrid.yaml").write_text(text)
    return folder / "hybrid.yaml"


def test_paths_are_relative_to_the_file_and_names_stay_names(tmp_path):
    recipe = load_hybrid_recipe(written(tmp_path))

    assert recipe.members["a"].path == str(tmp_path / "runs" / "a")
    assert (recipe.members["b"].path, recipe.members["b"].index) == ("smollm2-135m", str(tmp_path / "docs-index"))
    assert recipe.data.train == str(tmp_path / "questions.jsonl")
    assert recipe.router.encoder == "all-minilm-l6-v2"


def test_what_is_written_out_reads_back_as_the_same(tmp_path):
    recipe = load_hybrid_recipe(written(tmp_path)).resolved()
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    again = load_hybrid_recipe(tmp_path / "again.yaml")

    assert {**again.model_dump(), "output": None} == {**recipe.model_dump(), "output": None}


def test_places_decide_nothing_and_settings_do(tmp_path):
    first = load_hybrid_recipe(written(tmp_path))
    moved = load_hybrid_recipe(written(tmp_path / "elsewhere"))

    assert recipe_digest(first) == recipe_digest(moved)
    assert recipe_digest(load_hybrid_recipe(written(tmp_path), ["router.l2=0.5"])) != recipe_digest(first)
    assert decisive_values(first)["members"]["b"] == {"retrieval": "lexical", "passages": None}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("index:", "indx:", r"members\.b\.indx: unknown key.*\n.*'index'"),
        ("  a: runs/a\n", "", "at least two members"),
        ("  a:", "  a/b:", "no name of a member"),
        ("  a:", "  B:", "differ in case"),
        ("retrieval: lexical", "retrieval: bm25", "should be 'none', 'lexical', 'dense' or 'hybrid'"),
        ("retrieval: lexical", "retrieval: none, passages: 2", "no passages are given"),
        ("recipe: hybrid", "recipe: hybrid\nkind: vote", "should be 'router', 'mixture' or 'memory'"),
        ("recipe: hybrid", "recipe: hybrid\nkind: memory", "of exactly one member, and there are 2"),
        ("members:", "kind: mixture\nmembers:\n  c: runs/c", "of exactly two members, and there are 3"),
        (
            "recipe: hybrid",
            "recipe: hybrid\nmixture: {weights: [0.5]}",
            "is for kind: mixture, and this is kind: rou",
        ),
        ("recipe: hybrid", "recipe: hybrid\nmemory: {neighbours: 8}", "is for kind: memory"),
        (
            "recipe: hybrid",
            "recipe: hybrid\nkind: mixture\nrouter: {l2: 0.5}",
            "is for kind: router, and this is kin",
        ),
        ("recipe: hybrid", "recipe: hybrid\nmixture: {weights: [1.5]}", r"mixture\.weights\.0: .*less than or equal"),
        ("recipe: hybrid", "recipe: hybrid\nmixture: {temperatures: []}", "names none to try"),
        ("recipe: hybrid", "recipe: hybrid\nmemory: {texts: [], questions: false}", "neither texts nor answers"),
        ("recipe: hybrid", "recipe: hybrid\nmemory: {precision: int8}", "should be 'float16' or 'float32'"),
        ("recipe: hybrid", "recipe: hybrid\nrouter: {l2: 0}", r"router\.l2: .*greater than 0"),
        ("data: q", "dta: q", r"dta: unknown key.*\n.*'data'"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path, old, new, fault):
    assert old in RECIPE
    with pytest.raises(RecipeError, match=fault) as caught:
        load_hybrid_recipe(written(tmp_path, RECIPE.replace(old, new)))
    assert "hybrid.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "fault"),
    [
        ("{path: m, retrieval: none}", "{path: n, retrieval: none}", "both have retrieval: none"),
        ("{path: m, index: i}", "{path: n, index: i}", "both have an index"),
    ],
)
def test_a_mixture_is_of_one_member_without_and_one_with_passages(tmp_path, first, second, fault):
    text = f"recipe: hybrid\nkind: mixture\nmembers:\n  a: {first}\n  b: {second}\ndata: questions.jsonl\n"
    with pytest.raises(RecipeError, match=fault):
        load_hybrid_recipe(written(tmp_path, text))


def test_what_a_memory_remembers_is_relative_to_the_file_and_decides_by_its_content(tmp_path):
    text = (
        "recipe: hybrid\nkind: memory\nmembers: {a: runs/a}\ndata: dev.jsonl\nmemory: {texts: docs, questions: q}\n"
    )
    recipe = load_hybrid_recipe(written(tmp_path, text))
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe.resolved()))

    assert recipe.memory.texts == (str(tmp_path / "docs"),)
    assert recipe.memory.questions == str(tmp_path / "q")
    assert decisive_values(recipe)["memory"] == {"neighbours": 64, "precision": "float16"}
    assert load_hybrid_recipe(tmp_path / "again.yaml") == recipe.resolved()


def test_settings_of_other_kinds_are_no_part_of_what_decides(tmp_path):
    assert {"mixture", "memory"}.isdisjoint(decisive_values(load_hybrid_recipe(written(tmp_path))))


def test_other_verbs_say_which_one_takes_it(tmp_path):
    with pytest.raises(RecipeError, match="Run it with `ftkit train`"):
        load_recipe(written(tmp_path))


@pytest.mark.parametrize(("kind", "members"), [("router", 2), ("mixture", 2), ("memory", 1)])
def test_the_shipped_ones_load(kind, members):
    shipped = Path(__file__).resolve().parents[2] / "recipes" / "hybrid" / f"{kind}.yaml"

    recipe = load_hybrid_recipe(shipped)

    assert recipe.kind == kind and len(recipe.members) == members
    assert recipe.resolved().output == "runs/hybrid"
