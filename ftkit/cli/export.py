"""``ftkit export``: one more artefact of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    kind: Annotated[str, typer.Option("--to", help="The kind; `ftkit recipes methods` lists those there are.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    dtype: Annotated[str, typer.Option(help="Of the stored weights, as far as the kind has several.")] = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished run and verify the export in a fresh process."""
    from ftkit.pipeline.exporting import export_run

    outcome = export_run(run, kind, output, dtype=dtype, quiet=quiet)
    if as_json:
        print_json({"path": str(output), **outcome.to_dict()})
    else:
        typer.echo(output)
