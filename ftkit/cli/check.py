"""``ftkit check``: everything that can be known before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ftkit.cli.check_output import print_compare, print_hybrid, print_improve, print_rag
from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.notices import show_notices
from ftkit.recipe import (
    find_recipe,
    kind_of,
    load_compare_spec,
    load_hybrid_recipe,
    load_improve_spec,
    load_rag_recipe,
    load_recipe,
)
from ftkit.units import format_bytes, format_count


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check recipe, data, masks, tokens, memory and disk; nothing is trained.

    Also of recipe: rag (documents, questions, readings, steps of each stretch), recipe: compare, recipe: hybrid, and
    recipe: improve (what is left of the log, and why the rest is not).
    """
    path, changes = find_recipe(recipe), overrides or []
    show_notices(quiet=quiet)
    kind = kind_of(path, changes)
    looks, shows = _WAYS.get(kind, (_check_run, _print))
    found = looks(path, changes)
    if as_json:
        print_json(found)
    elif not quiet:
        shows(found)


# Each reads its recipe before torch: a typo answers at once.


def _check_run(path: Path, overrides: list[str]) -> dict[str, Any]:
    loaded = load_recipe(path, overrides)
    from ftkit.pipeline.checking import check as check_recipe

    return check_recipe(loaded)


def _check_rag(path: Path, overrides: list[str]) -> dict[str, Any]:
    loaded = load_rag_recipe(path, overrides)
    from ftkit.rag.checking import check_rag

    return check_rag(loaded)


def _check_compare(path: Path, overrides: list[str]) -> dict[str, Any]:
    loaded = load_compare_spec(path, overrides)
    from ftkit.compare.checking import check_compare

    return check_compare(loaded)


def _check_hybrid(path: Path, overrides: list[str]) -> dict[str, Any]:
    loaded = load_hybrid_recipe(path, overrides)
    from ftkit.hybrid.checking import check_hybrid

    return check_hybrid(loaded)


def _check_improve(path: Path, overrides: list[str]) -> dict[str, Any]:
    loaded = load_improve_spec(path, overrides)
    from ftkit.improve.checking import check_improve

    return check_improve(loaded)


_WAYS: dict[str | None, tuple[Callable[[Path, list[str]], dict[str, Any]], Callable[[dict[str, Any]], None]]] = {
    "rag": (_check_rag, print_rag),
    "compare": (_check_compare, print_compare),
    "hybrid": (_check_hybrid, print_hybrid),
    "improve": (_check_improve, print_improve),
}


def _print(found: dict[str, Any]) -> None:
    console = Console()
    data, needs = found["data"], found["estimate"]
    console.print(f"model   {found['model']['name']}  SHA-256 {found['model']['sha256'][:16]}…", highlight=False)
    dropped = "".join(f", {count} dropped: {reason}" for reason, count in data["dropped"].items())
    console.print(
        f"data    {data['rows_in']} rows: {data['trained']} to train on, {data['validation']} held back{dropped}\n"
        f"        {format_count(data['tokens'])} tokens, {format_count(data['supervised_tokens'])} count; "
        f"longest {data['lengths']['max']}; answers end with {', '.join(data['stop_tokens'])}",
        highlight=False,
    )
    console.print(
        f"train   {found['steps']} steps; {format_count(needs['trainable_parameters'])} of "
        f"{format_count(needs['total_parameters'])} parameters; {found['compute']} on {found['device']}\n"
        f"memory  about {format_bytes(needs['memory'])} of {format_bytes(needs['available'])} free: weights "
        f"{format_bytes(needs['weights'])}, optimizer {format_bytes(needs['training'])}, activations "
        f"{format_bytes(needs['activations'])}\n"
        f"disk    about {format_bytes(needs['disk'])}",
        highlight=False,
    )
    console.print(f"row     {found['example']['place']}, what counts is [bold green]green and underlined[/]:")
    row = Text()
    for stretch in found["example"]["stretches"]:
        row.append(stretch["text"], style="bold green underline" if stretch["supervised"] else "dim")
    console.print(row)
    for warning in found["warnings"]:
        console.print(Text(f"warning: {warning}", style="yellow"))
