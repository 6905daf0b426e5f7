"""``ftkit train``: the whole line."""

from __future__ import annotations

from typing import Annotated

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prepare, train, export and verify, as the recipe says."""
    from ftkit.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), overrides or [])  # before torch: a typo answers at once
    from ftkit.cli.samples import print_samples
    from ftkit.pipeline.run import run
    from ftkit.pipeline.summary import summary

    finished = run(loaded, quiet=quiet)
    if as_json:
        print_json({"folder": str(finished.folder), **finished.result})
    else:
        if not quiet:
            print_samples(finished.folder / "samples.json")
        typer.echo(summary(finished.folder, finished.result))
