"""`ftkit recipes`: the methods and the shipped recipes, for people and for scripts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from ftkit.recipe import load_recipe, shipped_recipes
from ftkit.recipe.facts import method_facts
from tests.cli.running import ftkit
from tests.cli.test_start import NO_TORCH

PLAIN = {
    "merged": ["transformers", "vLLM", "SGLang", "TGI"],
    "nf4": ["transformers"],
    "gguf": ["llama.cpp", "Ollama"],
    "onnx": ["onnxruntime-genai"],
}


@pytest.fixture
def pipe(monkeypatch):
    """No terminal, and nothing that makes rich believe in one."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    """The command in a terminal of a width, as rich sees it; returns the text without its escape codes."""

    def in_columns(columns: int, *words: str) -> str:
        for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": str(columns), "TERM": "xterm"}.items():
            monkeypatch.setenv(name, value)
        out = ftkit(*words).out
        assert "\x1b[1m" in out
        return re.sub(r"\x1b\[[0-9;]*m", "", out)

    return in_columns


def test_the_list_for_scripts_keeps_its_four_keys_and_brings_the_methods_facts():
    items = {item["name"]: item for item in json.loads(ftkit("recipes", "--json").out)}

    assert list(items) == ["adapter", "full", "lora", "prefix", "prompt", "qlora", "quickstart"]
    for name, item in items.items():
        assert list(item)[:4] == ["name", "recipe", "about", "path"]
        assert item["recipe"] == ("lora" if name == "quickstart" else name)
        assert item["path"].endswith(f"recipes/{name}.yaml")
    assert {key: items["lora"][key] for key in ("kind", "trainable_share", "mergeable", "engines")} == {
        "kind": "lora",
        "trainable_share": 0.036,
        "mergeable": True,
        "engines": {"adapter": ["PEFT", "vLLM"], **PLAIN, "gguf-adapter": ["llama.cpp"]},
    }
    assert items["adapter"]["engines"] == {"adapter": ["ftkit"]}
    assert items["full"]["engines"] == PLAIN


def test_the_methods_for_scripts_include_the_kinds_that_have_no_file():
    methods = json.loads(ftkit("recipes", "methods", "--json").out)

    assert [(method["recipe"], method["kind"]) for method in methods] == [
        ("full", None),
        *(("lora", kind) for kind in ("lora", "adalora", "vera", "ia3", "oft", "loha", "lokr")),
        ("qlora", None), ("prefix", None), ("prompt", None), ("adapter", None),
    ]  # fmt: skip
    assert methods[4] == {
        "recipe": "lora",
        "kind": "ia3",
        "trainable_share": 0.00043,
        "mergeable": True,
        "engines": {"adapter": ["PEFT"], **PLAIN},
        "when": "very little data; fewest parameters that still merge",
    }


def test_in_a_pipe_every_row_is_one_plain_line(pipe):
    out = ftkit("recipes").out
    rows = [line.split("  ") for line in out.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]

    assert "\x1b" not in out
    assert rows[0] == ["method", "trains", "merges", "adapter in", "choose it for"]
    vera = ["lora (kind: vera)", "0.16 %", "yes", "PEFT", "far fewer trained parameters than LoRA's"]
    assert vera in rows
    assert ["prompt", "0.0086 %", "yes", "PEFT", "kilobytes a task on a large base; weak on small ones"] in rows
    assert ["full", "100 %", "yes", "-", "much data, a far domain; 16 bytes of memory a parameter"] in rows
    assert all([item.name, item.about] in rows for item in shipped_recipes())


@pytest.mark.parametrize("columns", [20, 60, 80, 140])
def test_a_terminal_of_any_width_shows_every_word(terminal, columns):
    out = terminal(columns, "recipes")
    words = " ".join([*(method.when for method in method_facts()), *(item.about for item in shipped_recipes())])

    # Below 60 the terminal itself breaks the lines, and commands are never broken, so that they can be copied.
    assert max(len(line) for line in out.splitlines() if not line.startswith("  ftkit ")) <= max(columns, 60)
    assert "…" not in out
    assert set(words.split()) - set(out.split()) == set()


def test_at_80_columns_no_method_takes_more_than_two_lines(terminal):
    table = terminal(80, "recipes", "methods").split("\n\n")[0].splitlines()

    assert len(table) <= 1 + 2 * len(method_facts())


def test_the_methods_answer_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, "recipes", "methods", "--json"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_two_commands_below_the_table_work(tmp_path, pipe):
    commands = [shlex.split(line) for line in ftkit("recipes").out.splitlines() if line.startswith("  ftkit ")]

    assert commands == [
        ["ftkit", "recipes", "copy", "lora", "my.yaml"],
        ["ftkit", "train", "my.yaml", "method={kind: vera}", "~train.learning_rate"],
    ]
    assert ftkit("recipes", "copy", "lora", tmp_path / "my.yaml").code == 0
    vera = load_recipe(tmp_path / "my.yaml", commands[1][3:]).resolved()
    assert vera.method.kind == "vera"
    assert vera.train.learning_rate == 4e-3  # VeRA's own; the file's is LoRA's, 2e-4


def test_an_unknown_action_names_the_three_that_there_are():
    outcome = ftkit("recipes", "methds")

    assert outcome.code == 2
    assert "use: ftkit recipes, ftkit recipes methods, or ftkit recipes copy NAME FILE" in outcome.err
