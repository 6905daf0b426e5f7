"""``ftkit export``: one more artefact of a finished run; one archive of it; or its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.errors import UsageError


def export(  # noqa: PLR0913 - a parameter an option
    source: Annotated[
        Path,
        typer.Argument(help="A finished run folder; with --bundle or --push also an export folder.", metavar="RUN"),
    ],
    kind: Annotated[
        str | None, typer.Option("--to", help="The kind; `ftkit recipes methods` lists those there are.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A new folder; with --bundle a new file.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the stored weights, as far as the kind has several.")] = "auto",
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="Write one archive for a machine without network: .tar, .tar.gz or .tar.zst."),
    ] = False,
    with_base: Annotated[
        bool | None,
        typer.Option(
            "--with-base/--without-base",
            help="Whether the base model goes into the archive. Where the export needs it, unless told.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder with the base model that goes in.", metavar="FOLDER")
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option(help="The training data's terms, for the archive.", metavar="TEXT")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(help="Sign the archive with this private key (elliptic curve, PEM).", metavar="KEYFILE"),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload the export to this hub repository.", metavar="OWNER/NAME")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see the uploaded export.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished run and verify the export in a fresh process; bundle it, or upload it, when asked."""
    alone = {"--with-base": with_base, "--base": base, "--data-licence": data_licence, "--sign": sign}
    for option, value in alone.items():
        if value is not None and not bundle:
            raise UsageError(f"{option} is for archives", fix="Say --bundle.")
    if bundle and (push is not None or public):
        raise UsageError("--bundle and --push are two things", fix="Run the command once for each.")
    if public and push is None:
        raise UsageError("--public is for uploads", fix="Say --push OWNER/NAME.")
    if bundle:
        from ftkit.pipeline.bundling import Packing
        from ftkit.pipeline.bundling import bundle as write

        packing = Packing(with_base=with_base, base=base, data_licence=data_licence, key=sign)
        archive = _required(output, "-o FILE.tar")
        written = write(source, archive, kind=kind, dtype=dtype, packing=packing, quiet=quiet)
        _print(written.to_dict(), archive, as_json=as_json)
        return
    outcome: dict[str, Any] = {}
    folder = source
    if push is not None:
        from ftkit.pipeline.pushing import push as upload
        from ftkit.pipeline.pushing import require_open_hub

        require_open_hub(push)
    if push is None or kind is not None or output is not None:
        from ftkit.pipeline.exporting import export_run

        folder = _required(output, "-o FOLDER")
        verification = export_run(source, _required(kind, "--to KIND"), folder, dtype=dtype, quiet=quiet)
        outcome = {"path": str(folder), **verification.to_dict()}
    if push is not None:
        outcome |= {"path": str(folder), "push": upload(folder, push, public=public, quiet=quiet)}
    _print(outcome, outcome["push"]["url"] if push is not None else folder, as_json=as_json)


def _required(value: Any, option: str) -> Any:
    if value is None:
        raise UsageError(f"{option} is missing", fix="`ftkit export --help` shows what goes together.")
    return value


def _print(outcome: dict[str, Any], line: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    else:
        typer.echo(line)
