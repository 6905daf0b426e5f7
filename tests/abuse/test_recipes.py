"""Hostile recipes and overrides: exit code 2 with a place, soon, and nothing is run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ftkit.errors import RecipeError
from ftkit.recipe import load_recipe
from ftkit.recipe.yaml12 import MAX_BYTES
from tests.cli.running import ftkit

GOOD = "recipe: lora\nmodel: m\ndata: rows.jsonl\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(12)
)
RECIPES: dict[str, tuple[str | bytes, str]] = {
    "more than a MiB": ("#" * (MAX_BYTES + 1), "is larger than"),
    "brackets": ("a: " + "[" * 10_000, "nested too deeply"),
    "braces": ("a: " + "{a: " * 10_000, "nested too deeply"),
    "dashes": ("- " * 20_000, "nested too deeply"),
    "questions": ("? " * 20_000, "nested too deeply"),
    "an anchor in itself": (GOOD + "x: &x [*x]\n", ":4: an anchor that contains itself"),
    "a mapping in itself": (GOOD + "x: &x {y: *x}\n", ":4: an anchor that contains itself"),
    "a billion laughs": (GOOD + LAUGHS, "more than 50000 values"),
    "a hundred thousand values": ("{" + "a," * 100_000, "more than 50000 values"),
    "a key twice": (GOOD + "recipe: full\n", ":4: the key 'recipe' stands twice"),
    "a merge": (GOOD + "x: &x {a: 1}\ny: {<<: *x}\n", "not YAML"),
    "a control character": (GOOD + 'x: "\x01"\n', "special characters are not allowed"),
    "a zero byte": (GOOD + "\0", "special characters are not allowed"),
    "bytes that are no UTF-8": (GOOD.encode() + b"\xff", ":4: is not UTF-8 text"),
    "UTF-16": (GOOD.encode("utf-16"), ":1: is not UTF-8 text"),
    "an endless number": (GOOD + f"train: {{seed: {'9' * 100_000}}}\n", "not YAML"),
    "an endless hexadecimal number": (GOOD + f"train: {{seed: 0x{'f' * 100_000}}}\n", ":4: a number of more than"),
    "a second document": (GOOD + "---\n" + GOOD, "another document"),
    "a key that is a list": (GOOD + "? [1, 2]\n: 3\n", ":4: keys must be words"),
    "a list": ("[1]", "is not a mapping"),
}


@pytest.mark.parametrize(("text", "words"), RECIPES.values(), ids=RECIPES)
def test_a_hostile_recipe_is_refused_soon(text, words, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()

    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir", "!mkdir"]
)
def test_a_tag_makes_no_object_and_calls_nothing(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(f"{GOOD}output: {tag} [made]\n")

    assert ftkit("check", "recipe.yaml").code == 2
    Path("recipe.yaml").write_text(GOOD)
    assert ftkit("check", "recipe.yaml", f"output={tag} [made]").code == 2
    assert not Path("made").exists()


@pytest.mark.parametrize("value", ["[" * 20_000, "{a: " * 20_000, "&a [*a]", "'\x01'", "0x" + "f" * 5000])
def test_a_hostile_override_is_refused(value, tmp_path):
    (tmp_path / "recipe.yaml").write_text(GOOD)

    with pytest.raises(RecipeError, match="override"):
        load_recipe(tmp_path / "recipe.yaml", [f"train.seed={value}"])


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_pipe, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "No such file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["a pipe", "a device without an end", "a folder", "a link to nothing", "a link to itself"],
)
def test_what_is_no_file_is_not_waited_for(make, words, tmp_path):
    make(tmp_path / "recipe.yaml")

    outcome = ftkit("check", tmp_path / "recipe.yaml")

    assert outcome.code == 2
    assert words in outcome.err


def test_a_name_with_a_zero_byte_or_without_end_is_a_wrong_name():
    assert ftkit("check", "a\0b").code == 2
    assert ftkit("check", "x" * 5000).code == 2


def test_names_that_are_no_text_do_not_break_the_json_of_an_error():
    outcome = ftkit("check", "\udcff.yaml", "--json")

    assert outcome.code == 2
    assert "\\udcff" in outcome.out
    outcome.out.encode()


@pytest.mark.parametrize("make", [_pipe, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "a device"])
def test_a_chat_template_that_is_no_file_is_not_waited_for(make, tmp_path, tiny_llama):
    (tmp_path / "recipe.yaml").write_text(GOOD.replace("model: m", f"model: {tiny_llama}"))
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    make(tmp_path / "endless")

    outcome = ftkit("check", tmp_path / "recipe.yaml", f"model.chat_template={tmp_path / 'endless'}")

    assert outcome.code == 2
    assert "neither a shipped template nor a readable file" in outcome.err
