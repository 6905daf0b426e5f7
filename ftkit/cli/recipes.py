"""``ftkit recipes``: the recipes that ship with ftkit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def recipes(
    action: Annotated[str, typer.Argument(help="list, or copy NAME FILE", metavar="[list|copy]")] = "list",
    name: Annotated[str | None, typer.Argument(help="The recipe to copy.")] = None,
    file: Annotated[Path | None, typer.Argument(help="Where to put it.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the shipped recipes, or copy one (with its data) to start from."""
    from ftkit.errors import UsageError
    from ftkit.recipe import copy_recipe, shipped_recipes

    if action == "list":
        found = shipped_recipes()
        if as_json:
            print_json(
                [
                    {"name": item.name, "recipe": item.method, "about": item.about, "path": str(item.path)}
                    for item in found
                ]
            )
        else:
            for item in found:
                typer.echo(f"{item.name:12} {item.about}")
        return
    if action != "copy" or name is None or file is None:
        raise UsageError(
            "use: ftkit recipes, or ftkit recipes copy NAME FILE",
            fix="NAME is one of those that `ftkit recipes` lists.",
        )
    written = copy_recipe(name, file)
    if as_json:
        print_json({"files": [str(path) for path in written]})
    elif not quiet:
        for path in written:
            typer.echo(path)
