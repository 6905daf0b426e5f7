"""``ftkit export``: one more artefact of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    kind: Annotated[str, typer.Option("--to", help="adapter or merged.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    dtype: Annotated[str, typer.Option(help="Of merged weights: auto, float32, bfloat16, float16.")] = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished run and verify the export in a fresh process."""
    from ftkit.errors import UsageError
    from ftkit.nearest import did_you_mean

    known = ("auto", "float32", "bfloat16", "float16")
    if dtype not in known:
        raise UsageError(f"--dtype {dtype!r} is not known", fix=did_you_mean(dtype, known))
    from ftkit.pipeline.exporting import export_run

    outcome = export_run(run, kind, output, dtype=dtype, quiet=quiet)
    if as_json:
        print_json({"path": str(output), **outcome.to_dict()})
    else:
        typer.echo(output)
