"""``ftkit rag train``: retriever and generator together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.recipe import load_rag_recipe


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A file with recipe: rag.")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a reader, a retriever, and both together, on questions about documents; the run can then be asked."""
    checked = load_rag_recipe(recipe, overrides or ())
    from ftkit.rag.run import run_rag

    finished = run_rag(checked, quiet=quiet)
    if as_json:
        print_json({"folder": str(finished.folder), **finished.result})
    else:
        typer.echo(f"{finished.folder}: finished. Ask it: ftkit rag ask {finished.folder} --question ...")
        typer.echo(f"report: {finished.folder / 'report.html'}")
