"""``ftkit generate``: one answer, or a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def generate(
    target: Annotated[str, typer.Argument(help="A run, an export, or a model.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="One user turn.")] = None,
    file: Annotated[
        Path | None, typer.Option("--input", help="A file: one prompt a line, or JSONL with a prompt field.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder with an adapter's base model.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer greedily, through the target's own chat template."""
    from ftkit.errors import DataError, UsageError

    if (prompt is None) == (file is None):
        raise UsageError("give --prompt TEXT or --input FILE")
    if prompt is not None:
        prompts = [prompt]
    else:
        assert file is not None
        try:
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            prompts = [json.loads(line)["prompt"] for line in lines] if file.suffix == ".jsonl" else lines
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: cannot be read as prompts: {error}") from None
    if not prompts or not all(isinstance(text, str) and text.strip() for text in prompts):
        raise DataError("a prompt is empty or not text", fix="Give at least one character each.")
    from ftkit.notices import show_notices
    from ftkit.pipeline.target import open_target

    show_notices(quiet=quiet)
    answers = open_target(target, base=base).generate(prompts, max_new_tokens=max_new_tokens)
    if as_json:
        print_json(answers[0].to_dict() if prompt is not None else [answer.to_dict() for answer in answers])
    else:
        for answer in answers:
            typer.echo(answer.text)
