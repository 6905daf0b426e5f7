"""``ftkit improve``: from a log of answers to a better model, if it is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.recipe import load_improve_spec


def improve(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A file with recipe: improve.")],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder; the same goes on there.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put back what was in service before.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a candidate from what was answered by consent, and promote it only if it is better on the frozen test.

    Run it again to go on: a round that was interrupted is gone on with, and new rows of the log begin another one.
    """
    checked = load_improve_spec(spec, [*(overrides or ()), *([] if output is None else [f"output={output}"])])
    from ftkit.improve.run import improve as run
    from ftkit.improve.run import rollback as go_back

    document = go_back(checked) if rollback else run(checked, quiet=quiet)
    if as_json:
        print_json(document)
        return
    for line in _lines(document):
        typer.echo(line)


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if data := found.get("data"):
        dropped = "".join(f"\n          {count} {reason}" for reason, count in data["dropped"].items())
        torn = f", {data['torn_lines']} torn lines" if data["torn_lines"] else ""
        lines.append(f"log       {data['rows']} answers{torn}; {data['kept']} kept{dropped}")
    if found["outcome"] == "waiting":
        lines.append(f"waiting   a round begins with {found['fewest']} rows")
    if gate := found.get("gate"):
        lines.append(
            f"round {found['round']:<4}{'promoted' if gate['promoted'] else 'not promoted'}: {gate['because']}"
        )
    if found["outcome"] == "withdrawn":
        lines.append("          the candidate is removed: an answer that it learnt from was withdrawn meanwhile")
    if found["outcome"] == "nothing new":
        lines.append("          nothing new is in the log since that round")
    lines.append(f"service   {found['in_service']['place']}")
    return lines
