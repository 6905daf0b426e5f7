"""``ftkit verify --endpoint``: what is printed, the exit codes, and that no model library is loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.running import ftkit
from tests.cli.test_start import NO_TORCH
from tests.export.small_exports import TOOLED, write_paper_export
from tests.pipeline.stand_ins import Engine, models, serving, vllm
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return write_paper_export(tmp_path_factory.mktemp("cli") / "export", tiny_tokenizer(template=TOOLED))


def _server(**faults):
    return serving(vllm(Engine(tiny_tokenizer(template=TOOLED), **faults)))


def test_a_server_that_agrees_is_exit_0(export):
    with _server() as server:
        outcome = ftkit("verify", export, "--endpoint", server.url)

    assert (outcome.code, outcome.err) == (0, "")
    assert "✗" not in outcome.out
    assert "POST /tokenize (vLLM, SGLang)" in outcome.out


def test_a_server_that_differs_is_exit_5_with_the_tokens(export):
    with _server(takes_tools=False) as server:
        outcome = ftkit("verify", export, "--endpoint", server.url)

    assert outcome.code == 5
    assert "3 of 30 prompts differ" in outcome.err
    assert "✗ tools offered" in outcome.out
    # The template writes a turn of its own with the tools in front; this vocabulary cuts "tools" into t-o-ol-s.
    assert "token 1: expected <|im_start|> 't' 'o' 'ol' … | served <|im_start|> 'user' '\\n' 'What' …" in outcome.out
    assert "the server leaves the tools out" in outcome.out


def test_json_is_one_document(export):
    with _server(asks=False) as server:
        outcome = ftkit("verify", export, "--endpoint", server.url, "--json")

    assert outcome.code == 5
    document = json.loads(outcome.out)
    assert document["passed"] is False
    assert document["endpoint"] == server.url


def test_a_server_that_shows_nothing_is_exit_6(export):
    with serving(models("x")) as server:
        outcome = ftkit("verify", export, "--endpoint", server.url, "--json")

    assert outcome.code == 6
    assert json.loads(outcome.out)["error"]["exit_code"] == 6


@pytest.mark.parametrize(
    "words",
    [
        ["--endpoint", "localhost:8000"],
        ["--endpoint", "http://127.0.0.1:9", "--timeout", "0"],
        ["--endpoint", "http://127.0.0.1:9", "--api-key-env", "NO_SUCH_VARIABLE"],
        ["--model", "x"],
        ["--timeout", "3"],
    ],
)
def test_mistakes_are_exit_2(export, words):
    assert ftkit("verify", export, *words).code == 2


def test_no_model_library_is_loaded(export):
    with _server() as server:
        words = ["verify", str(export), "--endpoint", server.url]
        done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "torch was loaded" not in done.stderr
