"""``ftkit eval``: loss and scores of a run, an export or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json


def evaluate(  # noqa: PLR0913 - a parameter an option
    target: Annotated[str, typer.Argument(help="A run, an export, or a model.")],
    data: Annotated[Path, typer.Option("--data", help="A data file or folder.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="exact_match, f1, rouge_l; may be repeated.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer.")] = 256,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Longest row in tokens; a run's own, else 1024.", show_default=False)
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder with an adapter's base model.", metavar="FOLDER")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure loss, perplexity and scores of generated answers on a data file."""
    from ftkit.errors import UsageError
    from ftkit.nearest import did_you_mean

    known = ("exact_match", "f1", "rouge_l")
    unknown = [name for name in metric or [] if name not in known]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a metric", fix=did_you_mean(unknown[0], known))
    from ftkit.notices import show_notices
    from ftkit.pipeline.target import open_target

    show_notices(quiet=quiet)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if max_length is not None:
        settings["max_length"] = max_length
    outcome = open_target(target, base=base).evaluate(data, metrics=metric or [], settings=settings)
    if as_json:
        print_json(outcome)
    else:
        for name, value in outcome.items():
            typer.echo(f"{name:12} {value:.4f}" if isinstance(value, float) else f"{name:12} {value}")
