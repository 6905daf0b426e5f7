"""``ftkit models``: known base models."""

from __future__ import annotations

from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def models(
    action: Annotated[str, typer.Argument(help="list, or pull NAME", metavar="[list|pull]")] = "list",
    name: Annotated[str | None, typer.Argument(help="A known name, a hub id or a folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List known base models and where each was found, or fetch one."""
    from ftkit.errors import UsageError
    from ftkit.models.find import find_base, known_folder
    from ftkit.models.known import KNOWN_MODELS
    from ftkit.notices import show_notices

    show_notices(quiet=quiet)
    if action == "list":
        found = {known: known_folder(model) for known, model in KNOWN_MODELS.items()}
        if as_json:
            print_json(
                [
                    {
                        "name": known,
                        "about": KNOWN_MODELS[known].about,
                        "licence": KNOWN_MODELS[known].licence,
                        "path": str(folder) if folder.is_dir() else None,
                    }
                    for known, folder in found.items()
                ]
            )
            return
        for known, folder in found.items():
            place = str(folder) if folder.is_dir() else f"not fetched; `ftkit models pull {known}` fetches it"
            typer.echo(f"{known}  {KNOWN_MODELS[known].about}, {KNOWN_MODELS[known].licence}\n  {place}")
        return
    if action != "pull" or name is None:
        raise UsageError("use: ftkit models, or ftkit models pull NAME")
    base = find_base(name)
    size = sum(path.stat().st_size for path in base.folder.iterdir() if path.is_file())
    if as_json:
        print_json({"name": base.name, "path": str(base.folder), "sha256": base.sha256, "bytes": size})
    else:
        typer.echo(base.folder)
