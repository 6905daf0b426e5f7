"""``ftkit rag world``: a closed world to compare on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def world(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
    subjects: Annotated[int, typer.Option(min=1, help="Fictional towns, companies, products and museums.")] = 200,
    paraphrases: Annotated[int, typer.Option(min=1, max=4, help="Wordings of each question.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write fictional documents, and questions that only they answer: nothing in them can have been learnt before."""
    from ftkit.notices import show_notices
    from ftkit.rag.world import closed_world, world_summary

    show_notices(quiet=quiet)
    made = closed_world(subjects=subjects, paraphrases=paraphrases, seed=seed)
    made.write(output)
    summary = world_summary(made)
    if as_json:
        print_json({"folder": str(output), **summary})
        return
    typer.echo(f"{output}:")
    for name, count in summary.items():
        typer.echo(f"  {name}: {count}")
