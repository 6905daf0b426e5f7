"""The `ftkit` command: its verbs, and the way from an error to an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

import ftkit
from ftkit.cli import (
    advise,
    chat,
    check,
    combine,
    compare,
    data,
    doctor,
    evaluate,
    export,
    generate,
    improve,
    models,
    rag,
    recipes,
    resume,
    schema,
    selftest,
    serve,
    train,
    unbundle,
    verify,
)
from ftkit.cli.output import guarded

app = typer.Typer(
    name="ftkit",
    help="Fine-tune language models, and hand over exports that are proven to behave like the trained model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ftkit {ftkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options before the verb; ``main`` reads --debug before anything can fail."""


VERBS: dict[str, Any] = {
    "recipes": recipes.recipes,
    "models": models.models,
    "check": check.check,
    "data": data.data,
    "train": train.train,
    "resume": resume.resume,
    "eval": evaluate.evaluate,
    "generate": generate.generate,
    "chat": chat.chat,
    "export": export.export,
    "combine": combine.combine,
    "compare": compare.compare,
    "improve": improve.improve,
    "advise": advise.advise,
    "unbundle": unbundle.unbundle,
    "verify": verify.verify,
    "selftest": selftest.selftest,
    "serve": serve.serve,
    "schema": schema.schema,
    "doctor": doctor.doctor,
}
for _name, _command in VERBS.items():
    app.command(_name)(_command)
app.add_typer(rag.app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with the exit code of docs and cli contract."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # wherever it stands
    # Tokenizers' worker threads and forked processes do not mix, and it says so on stderr at every run.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    code = guarded(lambda: _call(words), as_json="--json" in words, debug=debug)
    sys.exit(code)


def _call(words: list[str]) -> None:
    # Typer ends the process itself for help, usage errors (2) and typer.Exit.
    app(words, standalone_mode=True)
