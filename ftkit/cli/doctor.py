"""``ftkit doctor``: what is installed, what is missing and how to get it."""

from __future__ import annotations

from typing import Any

import typer

from ftkit.cli.output import Json, Quiet, print_json


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show versions, devices, caches and missing parts."""
    from ftkit.pipeline.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
        return
    if quiet:
        return
    for section, facts in found.items():
        typer.echo(section)
        for name, value in facts.items():
            typer.echo(f"  {name:22} {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
