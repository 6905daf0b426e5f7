"""Exports that transformers does not read name the engine that does, with its command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftkit.errors import MissingPartError, UsageError
from ftkit.export.manifest import ExportManifest
from ftkit.pipeline.other_engines import refuse_other_engine


def _manifest(kind, *files):
    return ExportManifest(
        kind=kind, recipe="lora", method={}, base={}, recipe_digest="", data_digest="", tokenizer_digest="",
        chat_template_digest=None, dtype="auto", quantization=None, stop_tokens=[2],
        files={name: {} for name in files},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "file", "command"),
    [
        ("gguf", "m-00001-of-00002.gguf", "llama-server --model out/m-00001-of-00002.gguf --jinja"),
        ("gguf-adapter", "a.gguf", "--lora out/a.gguf"),
        ("onnx", "model.onnx", "onnxruntime_genai.Model('out')"),
    ],
)
def test_the_engine_and_its_command_are_named(kind, file, command):
    manifest = _manifest(kind, "tokenizer.json", "m-00002-of-00002.gguf" if kind == "gguf" else "z", file)

    with pytest.raises(MissingPartError) as caught:
        refuse_other_engine(Path("out"), manifest)

    assert command in str(caught.value)
    assert caught.value.exit_code == 6


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="'punched-cards'"):
        refuse_other_engine(Path("out"), _manifest("punched-cards"))
