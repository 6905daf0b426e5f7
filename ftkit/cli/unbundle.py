"""``ftkit unbundle``: unpack what ``ftkit export --bundle`` packed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def unbundle(
    file: Annotated[Path, typer.Argument(help="A bundle.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder.")],
    public_key: Annotated[
        Path | None, typer.Option(help="Check the signature beside the bundle with this key first.", metavar="KEY")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Unpack a bundle into a new folder, by name, size and digest; `ftkit verify DIR/model` checks what it does."""
    from ftkit.notices import show_notices
    from ftkit.pipeline.bundling import unbundle as unpack

    show_notices(quiet=quiet)
    index = unpack(file, output, public_key=public_key)
    if as_json:
        print_json({"path": str(output), **index})
    else:
        typer.echo(output)
