"""``ftkit models``: known base models."""

from __future__ import annotations

from typing import Annotated, Any

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
    from ftkit.models.find_encoder import find_encoder, known_encoder_folder
    from ftkit.models.known import KNOWN_ENCODERS, KNOWN_MODELS
    from ftkit.notices import show_notices

    show_notices(quiet=quiet)
    if action == "list":
        models: list[Any] = [("model", known, known_folder(known)) for known in KNOWN_MODELS.values()]
        encoders: list[Any] = [("encoder", known, known_encoder_folder(known)) for known in KNOWN_ENCODERS.values()]
        if as_json:
            print_json(
                [
                    {
                        "name": known.name,
                        "kind": kind,
                        "about": known.about,
                        "licence": known.licence,
                        "path": str(folder) if folder.is_dir() else None,
                    }
                    for kind, known, folder in (*models, *encoders)
                ]
            )
            return
        for kind, known, folder in (*models, *encoders):
            place = str(folder) if folder.is_dir() else f"not fetched; `ftkit models pull {known.name}` fetches it"
            typer.echo(f"{known.name}  {kind}: {known.about}, {known.licence}\n  {place}")
        return
    if action != "pull" or name is None:
        raise UsageError("use: ftkit models, or ftkit models pull NAME")
    base: Any = find_encoder(name) if name in KNOWN_ENCODERS else find_base(name)
    size = sum(path.stat().st_size for path in base.folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"name": base.name, "path": str(base.folder), "sha256": base.sha256, "bytes": size})
    else:
        typer.echo(base.folder)
