"""A recipe file is read strictly, and every fault in it is reported in one pass with its place."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from ftkit.errors import RecipeError
from ftkit.recipe import (
    AdapterRecipe,
    FullRecipe,
    LoRARecipe,
    PrefixRecipe,
    PromptRecipe,
    QLoRARecipe,
    load_recipe,
    recipe_error,
    recipe_from_values,
)
from ftkit.recipe.sections import MERGED_KINDS, ExportKind
from ftkit.recipe.yaml12 import MAX_BYTES, parse_value

KINDS = " or ".join([", ".join(map(repr, get_args(ExportKind)[:-1])), repr(get_args(ExportKind)[-1])])

KNOWN = "Known: full, lora, qlora, prefix, prompt, adapter."
SHORT = "recipe: lora\nmodel: smollm2-135m\ndata: train.jsonl\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> list[str]:
    """What loading reports, without the folder: ``r.yaml:4: train.seed: ...``."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text))
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


# What a short recipe means


def test_every_default_of_a_short_recipe_is_written_out_when_resolved(tmp_path):
    resolved = load_recipe(write(tmp_path, SHORT)).resolved().model_dump(mode="json")

    assert resolved == {
        "version": 1,
        "recipe": "lora",
        "model": {
            "path": "smollm2-135m",
            "revision": None,
            "dtype": "auto",
            "chat_template": None,
            "chat_template_kwargs": {},
            "added_tokens": "auto",
        },
        "data": {
            "train": [
                {
                    "path": f"{tmp_path}/train.jsonl",
                    "format": "auto",
                    "columns": None,
                    "max_rows": None,
                    "revision": None,
                    "subset": None,
                    "split": None,
                    "weight": 1.0,
                }
            ],
            "validation": 0.05,
            "group_by": None,
            "evaluation": [],
            "replay": None,
            "format": "auto",
            "columns": None,
            "max_length": 1024,
            "overflow": "error",
            "train_on": "assistant",
            "allow_control_tokens": False,
            "dedup": "off",
            "near_duplicates": "auto",
            "packing": "auto",
            "streaming": False,
            "workers": "auto",
        },
        "method": {
            "kind": "lora",
            "rank": 16,
            "alpha": 32,
            "dropout": 0.0,
            "target_modules": "all-linear",
            "rank_pattern": {},
            "alpha_pattern": {},
            "use_rslora": False,
            "use_dora": False,
            "loraplus_lr_ratio": None,
            "modules_to_save": None,
            "trainable_tokens": None,
            "init": "default",
        },
        "train": {
            "objective": "sft",
            "learning_rate": 2e-4,
            "schedule": "cosine",
            "warmup": 0.03,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "epochs": 3,
            "max_steps": None,
            "batch_size": 16,
            "micro_batch_size": "auto",
            "engine": "auto",
            "gradient_checkpointing": False,
            "checkpoint_every": 100,
            "keep_last": 2,
            "keep_best": 0,
            "validate_every": 100,
            "log_every": 1,
            "seed": 0,
        },
        "evaluate": {
            "samples": 4,
            "metrics": ["exact_match"],
            "max_examples": 100,
            "max_new_tokens": 256,
            "forgetting": None,
            "forgetting_rows": 100,
        },
        "export": [{"kind": "adapter", "dtype": "auto"}, {"kind": "merged", "dtype": "auto"}],
        "output": "runs/lora",
    }


@pytest.mark.parametrize(
    ("recipe", "rate", "kinds", "output"),
    [
        (FullRecipe, 2e-5, ["merged"], "runs/full"),
        (LoRARecipe, 2e-4, ["adapter", "merged"], "runs/lora"),
        (QLoRARecipe, 2e-4, ["adapter", "merged"], "runs/qlora"),
        (PrefixRecipe, 1e-2, ["adapter"], "runs/prefix"),
        (PromptRecipe, 3e-2, ["adapter"], "runs/prompt"),
        (AdapterRecipe, 1e-3, ["adapter"], "runs/adapter"),
    ],
)
def test_defaults_that_depend_on_the_method_are_the_methods_own(recipe, rate, kinds, output):
    resolved = recipe(model="m", data="d").resolved()

    assert resolved.train.learning_rate == rate
    assert [export.kind for export in resolved.export] == kinds
    assert resolved.output == output


def test_what_was_set_is_kept_when_resolved():
    recipe = FullRecipe(model="m", data="d", train={"learning_rate": 1.0}, export=[], output="here")

    resolved = recipe.resolved()

    assert (resolved.train.learning_rate, resolved.export, resolved.output) == (1.0, (), "here")


def test_bare_strings_mean_the_same_in_python_and_in_yaml(tmp_path):
    read = load_recipe(write(tmp_path, "recipe: lora\nmodel: m\ndata: /d/t.jsonl\nexport: merged\n"))

    bare = LoRARecipe(model="m", data=Path("/d/t.jsonl"), export="merged")
    written_out = LoRARecipe(
        model={"path": "m"}, data={"train": [{"path": "/d/t.jsonl"}]}, export=[{"kind": "merged"}]
    )

    assert read == bare == written_out


def test_several_training_files_may_stand_bare_in_a_list():
    recipe = LoRARecipe(model="m", data=["a.jsonl", {"path": "b.jsonl", "max_rows": 3}])

    assert [(source.path, source.max_rows) for source in recipe.data.train] == [("a.jsonl", None), ("b.jsonl", 3)]


def test_a_recipe_cannot_be_changed_after_it_was_checked():
    with pytest.raises(ValidationError, match="frozen"):
        LoRARecipe(model="m", data="d").output = "elsewhere"


# YAML 1.2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001),
        ("2.0e-4", 0.0002),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("010", 10),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("", None),
        ("[adapter, merged]", ["adapter", "merged"]),
    ],
)
def test_values_are_read_as_yaml_1_2(text, value):
    read = parse_value(text)

    assert read == value
    assert type(read) is type(value)


def test_words_that_yaml_1_1_took_for_booleans_are_names_in_a_file(tmp_path):
    recipe = load_recipe(write(tmp_path, "recipe: lora\nmodel: yes\ndata: {train: on}\noutput: no\n"))

    assert (recipe.model.path, recipe.data.train[0].path, recipe.output) == ("yes", f"{tmp_path}/on", "no")


# Faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SHORT + "trian: {}\n", "r.yaml:4: trian: unknown key\n  Did you mean 'train'?"),
        (SHORT + "train:\n  epohcs: 1\n", "r.yaml:5: train.epohcs: unknown key\n  Did you mean 'epochs'?"),
        (SHORT + "method: {rnk: 8}\n", "r.yaml:4: method.rnk: unknown key\n  Did you mean 'rank'?"),
        (SHORT + "export:\n- kind: merged\n  dtpe: auto\n",
         "r.yaml:6: export.0.dtpe: unknown key\n  Did you mean 'dtype'?"),
        ("recipe: lora\nmodel: m\ndata:\n  train:\n  - path: a\n  - path: b\n    max_row: 1\n",
         "r.yaml:7: data.train.1.max_row: unknown key\n  Did you mean 'max_rows'?"),
        ("recipe: lora\nmodel: m\ndata:\n- path: a\n  formt: text\n",
         "r.yaml:5: data.0.formt: unknown key\n  Did you mean 'format'?"),
        ("recipe: full\nmodel: m\ndata: d\nmethod: {xyzzy: 8}\n",
         "r.yaml:4: method.xyzzy: unknown key\n  Known keys: parameters."),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_key(tmp_path, text, expected):
    assert faults(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train: {seed: true}", "train.seed: should be a whole number, not True"),
        ("train: {seed: 1.0}", "train.seed: should be a whole number, not 1.0"),
        ("train: {seed: '1'}", "train.seed: should be a whole number, not '1'"),
        ("train: {epochs: many}", "train.epochs: should be a number, not 'many'"),
        ("train: {epochs: .inf}", "train.epochs: should be a finite number, not inf"),
        ("train: {learning_rate: .nan}", "train.learning_rate: should be a finite number, not nan"),
        ("train: {learning_rate: 0}", "train.learning_rate: should be greater than 0, not 0"),
        ("train: {gradient_checkpointing: 1}", "train.gradient_checkpointing: should be true or false, not 1"),
        ("train: 3", "train: should be a mapping of keys to values, not 3"),
        ("output: 3", "output: should be text, not 3"),
        ("evaluate: {metrics: f1}", "evaluate.metrics: should be a list, not 'f1'"),
        ("evaluate: {forgetting: []}", "evaluate.forgetting: should not be empty"),
        ("export: [ggml]", f"export.0: should be {KINDS}, not 'ggml'"),
        ("method: {target_modules: q_proj}",
         "method.target_modules: should be 'all-linear', not 'q_proj' or should be a list, not 'q_proj'"),
        ("version: 2", "version: should be 1, not 2"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(tmp_path, line, expected):
    assert faults(tmp_path, SHORT + line) == [f"r.yaml:4: {expected}"]


def test_all_faults_are_reported_in_one_pass(tmp_path):
    found = faults(
        tmp_path,
        """\
        recipe: lora
        modle: m
        data: {train: 3}
        train:
          epohcs: 1
          seed: -1
        method: {rank: 0}
        """,
    )

    assert sorted(line.splitlines()[0] for line in found) == [
        "r.yaml: model: is required and not given",
        "r.yaml:2: modle: unknown key",
        "r.yaml:3: data.train: should be text, not 3",
        "r.yaml:5: train.epohcs: unknown key",
        "r.yaml:6: train.seed: should be greater than or equal to 0, not -1",
        "r.yaml:7: method.rank: should be greater than or equal to 1, not 0",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe: lora\n", ["r.yaml: model: is required and not given", "r.yaml: data: is required and not given"]),
        ("recipe: lora\nmodel: {revision: x}\ndata: d\n", ["r.yaml:2: model.path: is required and not given"]),
        ("recipe: lora\nmodel: m\ndata: {train: []}\n", ["r.yaml:3: data.train: should not be empty"]),
        ("recipe: lora\nmodel: m\ndata:\n- {max_rows: 1}\n", ["r.yaml:4: data.0.path: is required and not given"]),
        ("model: m\ndata: d\n", [f"r.yaml: recipe: is required and not given\n  {KNOWN}"]),
        ("", [f"r.yaml: recipe: is required and not given\n  {KNOWN}"]),
        ("recipe: loar\n", ["r.yaml:1: recipe: 'loar' is not a recipe\n  Did you mean 'lora'?"]),
        ("recipe: [lora]\n", [f"r.yaml:1: recipe: ['lora'] is not a recipe\n  {KNOWN}"]),
    ],
)
def test_a_missing_required_key_is_named(tmp_path, text, expected):
    assert faults(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe: lora\nmodel: m\nrecipe: full\n", "r.yaml:3: the key 'recipe' stands twice\n  Delete one of them."),
        ("recipe: lora\ntrain:\n  seed: 1\n  seed: 2\n",
         "r.yaml:4: the key 'seed' stands twice\n  Delete one of them."),
        ("recipe: lora\nmodel: &a [*a]\n", "r.yaml:2: an anchor that contains itself"),
        ("recipe: lora\nmodel: &a {path: *a}\n", "r.yaml:2: an anchor that contains itself"),
        ("recipe: lora\n1: 2\n", "r.yaml:2: keys must be words"),
        ("recipe: lora\n? [a]\n: 2\n", "r.yaml:2: keys must be words"),
        ("recipe: lora\nmodel: a: b\n", "r.yaml:2: not YAML: mapping values are not allowed here"),
        ("- recipe\n", "r.yaml: is not a mapping of keys to values\n  Begin with `recipe: lora`."),
        ("recipe: " + "[" * 1000, "r.yaml: is nested too deeply to be a recipe"),
    ],
)  # fmt: skip
def test_what_is_not_a_recipe_file_is_refused_with_its_line(tmp_path, text, expected):
    assert faults(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    "model", ["!!python/object/apply:os.mkdir [pwned]", "!!python/name:os.mkdir x", "!!python/module:antigravity x"]
)
def test_a_tag_that_would_build_a_python_object_builds_none(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)

    found = faults(tmp_path, f"recipe: lora\nmodel: {model}\ndata: d\n")

    assert found[0].startswith("r.yaml:2: ")
    assert not (tmp_path / "pwned").exists()
    assert "antigravity" not in sys.modules


def test_aliases_that_unfold_to_billions_of_values_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]  # 10^10 in the end

    (found,) = faults(tmp_path, "\n".join(lines))

    assert found.endswith("more than 50000 values, so hardly a recipe")


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path):
    (found,) = faults(tmp_path, SHORT + "#" * MAX_BYTES)

    assert found == "r.yaml: is larger than 1048576 bytes, so it is hardly a recipe"


def test_a_file_that_is_not_utf_8_is_refused_with_the_line_of_the_first_wrong_byte(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"recipe: lora\nmodel: caf\xe9\n")

    with pytest.raises(RecipeError) as caught:
        load_recipe(path)

    assert str(caught.value) == f"{path}:2: is not UTF-8 text"


def test_a_missing_file_is_a_recipe_error_that_says_how_to_find_one(tmp_path):
    with pytest.raises(RecipeError, match=r"No such file or directory\n  .*ftkit recipes"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "m" * 300, '"a\\0b"'])
def test_a_name_that_cannot_be_a_path_is_left_for_the_model_search_to_refuse(tmp_path, name):
    recipe = load_recipe(write(tmp_path, f"recipe: lora\nmodel: {name}\ndata: {name}\n"))

    assert recipe.model.path == parse_value(name)


def test_faults_of_a_recipe_built_in_python_read_like_those_of_a_file():
    values = {"model": "m", "data": "d", "method": {"rnk": 1}}
    with pytest.raises(ValidationError) as caught:
        LoRARecipe(**values)

    error = recipe_error(caught.value, LoRARecipe, values)

    assert str(error) == "LoRARecipe: method.rnk: unknown key\n  Did you mean 'rank'?"


def test_plain_values_are_checked_with_the_callers_own_places():
    with pytest.raises(RecipeError) as caught:
        recipe_from_values({"recipe": "lora", "model": "m"}, lambda key: "here")

    assert str(caught.value) == "here: data: is required and not given"


# Settings that do not go together


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe: full\nmodel: m\ndata: d\nexport: [merged, adapter]\n",
         f"r.yaml:4: export: full has no 'adapter' export; it has {', '.join(map(repr, MERGED_KINDS))}"),
        (SHORT + "export: [merged, merged]\n",
         "r.yaml:4: export: a kind of export is named twice; each is written to export/KIND"),
        ("recipe: lora\nmodel: m\ndata:\n  train: d\n  packing: true\ntrain: {micro_batch_size: 2}\n",
         "r.yaml:6: train.micro_batch_size: packs are cut by tokens, not by examples: leave micro_batch_size at "
         "auto, or set packing to false"),
        ("recipe: lora\nmodel: m\ndata:\n  train: d\n  streaming: true\n",
         "r.yaml:5: data.streaming: streaming data has no length, so train.max_steps must say when training ends"),
        ("recipe: lora\nmodel: m\ntrain: {max_steps: 5}\ndata:\n  train: d\n  streaming: true\n  dedup: exact\n",
         "r.yaml:7: data.dedup: streaming never sees all rows at once, which dedup needs"),
        (SHORT + "train:\n  batch_size: 6\n  micro_batch_size: 4\n",
         "r.yaml:6: train.micro_batch_size: micro_batch_size 4 does not divide batch_size 6"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_where_they_stand(tmp_path, text, expected):
    assert faults(tmp_path, text) == [expected]


def test_micro_batches_that_fill_the_batch_and_packing_that_is_off_are_fine():
    recipe = LoRARecipe(
        model="m", data={"train": "d", "packing": False}, train={"batch_size": 6, "micro_batch_size": 3}
    )

    assert (recipe.data.packing, recipe.train.micro_batch_size) == (False, 3)


# Paths


def test_relative_paths_are_taken_from_the_recipes_folder(tmp_path, monkeypatch):
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    (place / "base").mkdir(parents=True)
    elsewhere.mkdir()
    (place / "chat.jinja").touch()
    (elsewhere / "t.jsonl").touch()  # must not be found: it lies in the current folder, not in the recipe's
    monkeypatch.chdir(elsewhere)

    recipe = load_recipe(
        write(
            place,
            """\
            recipe: lora
            model: {path: base, chat_template: chat.jinja}
            data: {train: [t.jsonl, {path: ../u.jsonl}], validation: v.jsonl}
            output: out
            """,
        )
    )

    assert recipe.model.path == f"{place}/base"
    assert recipe.model.chat_template == f"{place}/chat.jinja"
    assert [source.path for source in recipe.data.train] == [f"{place}/t.jsonl", f"{tmp_path}/u.jsonl"]
    assert recipe.data.validation == f"{place}/v.jsonl"
    assert recipe.output == "out"


@pytest.mark.parametrize(
    "data", ["t.jsonl", "[t.jsonl]", "[{path: t.jsonl}]", "{train: t.jsonl}", "{train: {path: t.jsonl}}"]
)
def test_every_short_form_of_the_data_section_has_its_path_anchored(tmp_path, data):
    recipe = load_recipe(write(tmp_path, f"recipe: lora\nmodel: m\ndata: {data}\n"))

    assert recipe.data.train[0].path == f"{tmp_path}/t.jsonl"


def test_names_that_are_no_folder_stay_names(tmp_path):
    recipe = load_recipe(write(tmp_path, "recipe: lora\nmodel: {path: org/name, chat_template: chatml}\ndata: d\n"))

    assert (recipe.model.path, recipe.model.chat_template) == ("org/name", "chatml")


def test_a_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    recipe = load_recipe(write(tmp_path, "recipe: lora\nmodel: ~/m\ndata: ~/d.jsonl\n"))

    assert (recipe.model.path, recipe.data.train[0].path) == (f"{tmp_path}/home/m", f"{tmp_path}/home/d.jsonl")


# Cost


def test_reading_a_recipe_loads_no_heavy_library(tmp_path):
    path = write(tmp_path, SHORT)
    code = (
        "import sys; from ftkit.recipe import load_recipe, json_schema; "
        f"load_recipe({str(path)!r}); json_schema(); "
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'pyarrow', 'bitsandbytes', 'datasets', 'safetensors'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert done.stdout.strip() == "[]"
