"""``ftkit compare``: systems side by side on one workload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.recipe import load_compare_spec


def compare(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A file with recipe: compare.")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder; the same goes on there.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0.1, help="Minutes: questions are drawn so that it fits.", metavar="MINUTES")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train and measure every system of a spec on the same questions, and say which differences are more than chance.

    Run it again to go on: what was done for the same settings is taken as it is.
    """
    more = list(overrides or ())
    if output is not None:
        more.append(f"output={output}")
    if budget is not None:
        more.append(f"budget={budget}")
    checked = load_compare_spec(spec, more)
    from ftkit.compare.document import COST_HEAD, TABLE, TEST_HEAD, cost_rows, scale_text, table_rows, test_rows
    from ftkit.compare.page import PAGE
    from ftkit.compare.page_parts import CLAIM_HEAD, claim_rows
    from ftkit.compare.run import compare as run

    document = run(checked, quiet=quiet)
    if as_json:
        print_json(document)
        return
    _print_table(["system", *TABLE], table_rows(document))
    _print_table(list(COST_HEAD), cost_rows(document))
    if document["tests"]:
        _print_table(list(TEST_HEAD), test_rows(document))
    if document["claims"]:
        _print_table(
            ["claim", *CLAIM_HEAD[1:]],
            [[one["id"], *row[1:]] for one, row in zip(document["claims"], claim_rows(document), strict=True)],
        )
    if (staged := document["staged"]) is not None and staged["stands"] is not None:
        left_out = [one["rung"] for one in staged["steps"] if one["accepted"] is False]
        typer.echo(f"rung by rung, {staged['stands']} stands; left out: {', '.join(left_out) or 'none'}")
    typer.echo(scale_text(document["scale"]))
    typer.echo(f"{Path(checked.resolved().output or '') / PAGE}")


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    """Plain columns, as wide as they are: a pipe or a narrow terminal must not cut figures off."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        typer.echo("  ".join([row[0].ljust(widths[0]), *figures]).rstrip())
    typer.echo("")
