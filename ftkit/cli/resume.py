"""``ftkit resume``: go on with an interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: Json = False, quiet: Quiet = False
) -> None:
    """Go on after any interruption, with the same result as if there had been none."""
    if (run / "rag.json").is_file():
        from ftkit.rag.run import resume_rag

        rag = resume_rag(run, quiet=quiet)
        if as_json:
            print_json({"folder": str(rag.folder), **rag.result})
        else:
            typer.echo(f"{rag.folder}: finished. Ask it: ftkit rag ask {rag.folder} --question ...")
            typer.echo(f"report: {rag.folder / 'report.html'}")
        return
    if (run / "hybrid.json").is_file():
        from ftkit.cli.train import print_hybrid
        from ftkit.hybrid.run import resume_hybrid

        print_hybrid(resume_hybrid(run, quiet=quiet), as_json=as_json)
        return
    from ftkit.cli.samples import print_samples
    from ftkit.pipeline.run import resume as resume_run
    from ftkit.pipeline.summary import summary

    finished = resume_run(run, quiet=quiet)
    if as_json:
        print_json({"folder": str(finished.folder), **finished.result})
    else:
        if not quiet:
            print_samples(finished.folder / "samples.json")
        typer.echo(summary(finished.folder, finished.result))
