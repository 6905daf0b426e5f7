"""``ftkit export``: one more artefact of a finished run; one archive of it; or its upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.errors import UsageError

_Source = Annotated[
    Path,
    typer.Argument(
        help="A finished run, a hybrid or an index; with --bundle or --push also an export folder.",
        metavar="RUN",
    ),
]
_Kind = Annotated[str | None, typer.Option("--to", help="The kind; `ftkit recipes methods` lists those there are.")]
_Output = Annotated[Path | None, typer.Option("-o", "--output", help="A new folder; with --bundle a new file.")]
_DType = Annotated[str, typer.Option(help="Of the stored weights, as far as the kind has several.")]
_Checkpoint = Annotated[
    str, typer.Option(help="last; best, with the lowest validation loss of those kept; or a step.", metavar="WHICH")
]
_Bundle = Annotated[
    bool, typer.Option("--bundle", help="Write one archive for a machine without network: .tar, .tar.gz or .tar.zst.")
]
_WithBase = Annotated[
    bool | None,
    typer.Option(
        "--with-base/--without-base",
        help="Whether the base model goes into the archive. Where the export needs it, unless told.",
        show_default=False,
    ),
]
_Base = Annotated[
    Path | None, typer.Option("--base", help="Folder with the base model that goes in.", metavar="FOLDER")
]
_DataLicence = Annotated[str | None, typer.Option(help="The training data's terms, for the archive.", metavar="TEXT")]
_Sign = Annotated[
    Path | None,
    typer.Option(help="Sign the archive with this private key (elliptic curve, PEM).", metavar="KEYFILE"),
]
_Push = Annotated[str | None, typer.Option(help="Upload the export to this hub repository.", metavar="OWNER/NAME")]
_Public = Annotated[bool, typer.Option("--public", help="Let everybody see the uploaded export.")]


def export(  # noqa: PLR0913 - a parameter an option
    source: _Source,
    kind: _Kind = None,
    output: _Output = None,
    dtype: _DType = "auto",
    checkpoint: _Checkpoint = "last",
    bundle: _Bundle = False,
    with_base: _WithBase = None,
    base: _Base = None,
    data_licence: _DataLicence = None,
    sign: _Sign = None,
    push: _Push = None,
    public: _Public = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished run and verify the export in a fresh process; bundle it, or upload it, when asked."""
    alone = {"--with-base": with_base, "--base": base, "--data-licence": data_licence, "--sign": sign}
    _require_sense({option for option, value in alone.items() if value is not None}, bundle, push, public)
    if bundle and checkpoint != "last":
        raise UsageError("--checkpoint: a bundle is made of an export", fix="Export first, then bundle that folder.")
    if bundle:
        from ftkit.pipeline.bundling import Packing
        from ftkit.rag.bundling import bundle as write

        packing = Packing(with_base=with_base, base=base, data_licence=data_licence, key=sign)
        archive = _required(output, "-o FILE.tar")
        written = write(source, archive, kind=kind, dtype=dtype, packing=packing, quiet=quiet)
        _print(written.to_dict(), archive, as_json=as_json)
        return
    outcome: dict[str, Any] = {}
    folder = source
    if push is not None:
        from ftkit.pipeline.pushing import push as upload
        from ftkit.pipeline.pushing import require_repository

        require_repository(push)
    if push is None or kind is not None or output is not None:
        folder = _required(output, "-o FOLDER")
        verification = _export(source, folder, kind, dtype=dtype, checkpoint=checkpoint, quiet=quiet)
        outcome = verification.to_dict()
    outcome = {"path": str(folder), **outcome}
    if push is not None:
        outcome["push"] = upload(folder, push, public=public, quiet=quiet)
    _print(outcome, outcome["push"]["url"] if push is not None else folder, as_json=as_json)


def _export(source: Path, folder: Path, kind: str | None, *, dtype: str, checkpoint: str, quiet: bool) -> Any:
    from ftkit.hybrid.opening import is_hybrid_place
    from ftkit.rag.opening import is_rag_place

    if is_hybrid_place(source):
        from ftkit.hybrid.exporting import export_hybrid

        if kind not in (None, "hybrid") or dtype != "auto" or checkpoint != "last":
            raise UsageError(
                f"{source}: a hybrid is exported as it answers now", fix="Leave out --to, --dtype and --checkpoint."
            )
        return export_hybrid(source, folder, quiet=quiet)
    if is_rag_place(source):
        from ftkit.rag.bundling import require_rag_options
        from ftkit.rag.exporting import export_rag

        require_rag_options(source, kind, dtype=dtype, checkpoint=checkpoint)
        return export_rag(source, folder, quiet=quiet)
    from ftkit.pipeline.exporting import export_run

    return export_run(source, _required(kind, "--to KIND"), folder, dtype=dtype, checkpoint=checkpoint, quiet=quiet)


def _require_sense(for_archives: set[str], bundle: bool, push: str | None, public: bool) -> None:
    if for_archives and not bundle:
        raise UsageError(f"{', '.join(sorted(for_archives))}: only for archives", fix="Say --bundle.")
    if bundle and (push is not None or public):
        raise UsageError("--bundle and --push are two things", fix="Run the command once for each.")
    if public and push is None:
        raise UsageError("--public is for uploads", fix="Say --push OWNER/NAME.")


def _required(value: Any, option: str) -> Any:
    if value is None:
        raise UsageError(f"{option} is missing", fix="`ftkit export --help` shows what goes together.")
    return value


def _print(outcome: dict[str, Any], line: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    else:
        typer.echo(line)
