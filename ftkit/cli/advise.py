"""``ftkit advise``: which approach fits a situation, with the evidence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.recipe import load_advise_spec


def advise(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="A file with the situation; without one it is asked for.")
    ] = None,
    overrides: Overrides = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also write the advice as one page.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001 - nothing is said beside the answer
) -> None:
    """Say which approach fits: prompting, fine-tuning, retrieval, or both together; or what to measure to find out.

    Rules come first, then your own comparison (evidence: comparison.json), then what papers found. Each line says
    where it comes from.
    """
    from ftkit.advise.advice import advise as decide
    from ftkit.advise.asking import ask_situation
    from ftkit.advise.page import advice_text, write_advice_page
    from ftkit.errors import UsageError

    if spec is not None:
        checked = load_advise_spec(spec, overrides or ())
    elif sys.stdin.isatty() and not as_json:
        checked = ask_situation(lambda text: typer.prompt(text, default="", show_default=False), typer.echo)
    else:
        raise UsageError("no situation is named", fix="Name a file: ftkit advise SPEC; in a terminal it asks for it.")
    advice = decide(checked)
    if page is not None:
        write_advice_page(page, advice)
    if as_json:
        print_json(advice.to_dict())
    else:
        typer.echo(advice_text(advice))
