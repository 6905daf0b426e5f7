"""``ftkit recipes``: the methods to choose from, and the recipes that ship with ftkit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ftkit.cli.output import Json, Quiet, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ftkit.recipe import ShippedRecipe
    from ftkit.recipe.facts import MethodFacts

# Columns. In a pipe or a file no line is broken, so that a row can be found by grep.
UNBROKEN = 1000
NARROWEST = 60  # in a narrower terminal a table would be cut off; there the terminal breaks the lines


def recipes(
    action: Annotated[
        str, typer.Argument(help="list, methods, or copy NAME FILE", metavar="[list|methods|copy]")
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="The recipe to copy.")] = None,
    file: Annotated[Path | None, typer.Argument(help="Where to put it.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the methods and the shipped recipes, or copy one (with its data) to start from."""
    from ftkit.errors import UsageError
    from ftkit.recipe import copy_recipe, shipped_recipes, shipped_specs
    from ftkit.recipe.facts import method_facts

    if action == "methods":
        methods = method_facts()
        if as_json:
            print_json([asdict(method) for method in methods])
        else:
            _print_methods(_console(), methods)
        return
    if action == "list":
        shipped = shipped_recipes()
        if as_json:
            print_json([_as_json(item) for item in shipped])
        else:
            console = _console()
            _print_methods(console, method_facts())
            console.print()
            _print_recipes(console, shipped, shipped_specs())
        return
    if action != "copy" or name is None or file is None:
        raise UsageError(
            "use: ftkit recipes, ftkit recipes methods, or ftkit recipes copy NAME FILE",
            fix="NAME is one of those that `ftkit recipes` lists.",
        )
    written = copy_recipe(name, file)
    if as_json:
        print_json({"files": [str(path) for path in written]})
    elif not quiet:
        for path in written:
            typer.echo(path)


def _as_json(item: ShippedRecipe) -> dict[str, object]:
    own = {"name": item.name, "recipe": item.method.recipe, "about": item.about, "path": str(item.path)}
    return own | asdict(item.method)


def _console() -> Console:
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, NARROWEST) if console.is_terminal else UNBROKEN
    return console


def _print_methods(console: Console, methods: Sequence[MethodFacts]) -> None:
    console.print(_method_table(methods))
    merged_engines = next(method.engines["merged"] for method in methods if method.mergeable)
    notes = _columns()
    notes.add_row("trains", "share of smollm2-135m's parameters, with the method's default settings")
    notes.add_row("merges", f"into plain weights, which serve in {', '.join(merged_engines)}")
    notes.add_row("adapter in", "what loads the adapter as it is, beside the base")
    console.print()
    console.print(notes)


def _print_recipes(console: Console, shipped: Sequence[ShippedRecipe], specs: Sequence[tuple[str, str]]) -> None:
    table = _columns("recipe", "about")
    for item in shipped:
        table.add_row(item.name, item.about)
    for name, about in specs:
        table.add_row(name, about)
    console.print(table)
    console.print()
    # soft_wrap: a command that rich broke could not be copied.
    console.print("Copy one, with its data:\n  ftkit recipes copy lora my.yaml", soft_wrap=True)
    console.print("Train another kind of it, at that kind's own learning rate:", soft_wrap=True)
    console.print("  ftkit train my.yaml 'method={kind: vera}' '~train.learning_rate'", soft_wrap=True)


def _method_table(methods: Sequence[MethodFacts]) -> Table:
    table = _columns("method", "trains", "merges", "adapter in", "choose it for")
    table.columns[1].justify = "right"
    table.columns[4].min_width = 12  # in a narrow terminal the first column gives way too
    for method in methods:
        table.add_row(
            method.name,
            f"{100 * method.trainable_share:g} %",
            "yes" if method.mergeable else "no",
            ", ".join(method.engines.get("adapter", ("-",))),
            method.when,
        )
    return table


def _columns(*headers: str) -> Table:
    """A table without lines, in which long words are folded and never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headers))
    for header in headers or ("", ""):
        table.add_column(header, overflow="fold")
    return table
