"""The command answers at once, and never loads torch for help, mistakes or the schema."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.running import ftkit

NO_TORCH = (
    "import sys\n"
    "from ftkit.cli.app import main\n"
    "try:\n"
    "    main(sys.argv[1:])\n"
    "finally:\n"
    "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch was loaded'\n"
)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["recipes"], 0),
        (["schema"], 0),
        (["train", "quickstart", "train.lerning_rate=1"], 2),
        (["check", "quickstart", "method.rnk=1"], 2),
        (["eval", "x", "--data", "y", "--metric", "exactmatch"], 2),
        (["nosuchverb"], 2),
    ],
)
def test_help_and_mistakes_answer_without_torch(words, code):
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, check=False)

    assert done.returncode == code, done.stderr
    assert "torch was loaded" not in done.stderr


def test_a_misspelt_override_names_itself_and_the_nearest_key():
    outcome = ftkit("train", "quickstart", "train.lerning_rate=1e-4")

    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err == (
        "override 'train.lerning_rate=1e-4': train.lerning_rate: unknown key\n  Did you mean 'learning_rate'?\n"
    )


def test_an_error_is_one_json_document_where_json_was_asked_for():
    outcome = ftkit("train", "quickstart", "method.rnk=4", "--json")

    document = json.loads(outcome.out)
    assert document["error"]["exit_code"] == outcome.code == 2
    assert document["error"]["problems"][0]["fix"] == "Did you mean 'rank'?"


def test_recipes_copy_writes_the_recipe_and_its_data(tmp_path):
    outcome = ftkit("recipes", "copy", "quickstart", tmp_path / "mine.yaml")

    assert outcome.code == 0, outcome.err
    assert (tmp_path / "mine.yaml").is_file()
    assert (tmp_path / "data" / "shop_tickets_train.jsonl").is_file()
    assert ftkit("recipes", "copy", "quickstart", tmp_path / "mine.yaml").code == 2


def test_the_schema_is_json_and_lists_every_recipe():
    schema = json.loads(ftkit("schema").out)

    known = {"full", "lora", "qlora", "prefix", "prompt", "adapter", "rag", "compare", "hybrid", "improve"}
    assert set(schema["discriminator"]["mapping"]) == known


def test_the_version_is_printed():
    assert ftkit("--version").out == "ftkit 0.1.0\n"
