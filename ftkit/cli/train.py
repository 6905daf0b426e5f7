"""``ftkit train``: the whole line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json


def print_hybrid(finished: Any, *, as_json: bool) -> None:
    """What came of a hybrid."""
    if as_json:
        print_json({"folder": str(finished.folder), **finished.result})
        return
    typer.echo(finished.result["because"])
    typer.echo(f"{finished.folder}: finished. Ask it: ftkit rag ask {finished.folder} --question ...")
    typer.echo(f"report: {finished.folder / 'report.html'}")


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prepare, train, export and verify, as the recipe says; of recipe: hybrid, learn what joins its members."""
    from ftkit.recipe import find_recipe, kind_of, load_hybrid_recipe, load_recipe

    path, changes = find_recipe(recipe), overrides or []
    if kind_of(path, changes) == "hybrid":
        hybrid = load_hybrid_recipe(path, changes)
        from ftkit.hybrid.run import run_hybrid

        print_hybrid(run_hybrid(hybrid, quiet=quiet), as_json=as_json)
        return
    loaded = load_recipe(path, changes)  # before torch: a typo answers at once
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
