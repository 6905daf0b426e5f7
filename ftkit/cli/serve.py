"""``ftkit serve``: an OpenAI-compatible server over exports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.errors import UsageError

Log = Annotated[
    Path | None,
    typer.Option(
        "--log",
        help="Log chats here for `ftkit improve`, the words only of requests with consent; without it nothing is "
        "ever logged.",
        metavar="FILE",
    ),
]


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="DIR or NAME=DIR: an export, a run, a model or an index; several adapters of one base."),
    ],
    engine: Annotated[str, typer.Option(help="auto, ftkit, transformers, vllm or llama-cpp.")] = "auto",
    program: Annotated[
        str | None, typer.Option(help="The engine's executable, where it is not on PATH.", metavar="FILE")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other machines reach only what is not loopback.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that clients must send.", metavar="VAR")
    ] = None,
    no_api_key: Annotated[bool, typer.Option("--no-api-key", help="Let other machines ask without a key.")] = False,
    log_file: Log = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer chat completions and completions over HTTP, with the template and tokens of training.

    Greedy unless a request names a temperature. `ftkit verify DIR --endpoint URL` checks a running server.
    """
    from ftkit.notices import log, show_notices
    from ftkit.serve.engines import OWN, choose_engine, engine_command, require_own_parts
    from ftkit.serve.listen import bind, choose_address, url_of
    from ftkit.serve.names import served_names

    show_notices(quiet=quiet)
    address = choose_address(host, port, api_key_env=api_key_env, no_api_key=no_api_key)
    names = served_names(models)
    chosen = choose_engine(engine, names)
    if log_file is not None and chosen != OWN:
        raise UsageError(f"--log: {chosen} logs nothing for ftkit", fix="Add --engine ftkit, or leave out --log.")
    bound = bind(address)
    url = url_of(host, bound.getsockname()[1])
    document = {"url": url, "engine": chosen, "models": list(names), "command": None}

    def ready() -> None:
        if as_json:
            print_json(document)
        elif not quiet:
            typer.echo(f"{url} answers for {', '.join(names)}; Ctrl-C ends it")
        sys.stdout.flush()  # whoever waits for this line may read it through a pipe

    if chosen == OWN:
        require_own_parts()
        from ftkit.serve.own import run_own

        raise typer.Exit(run_own(names, address, bound, ready=ready, log_file=log_file))
    from ftkit.serve.child import run_engine
    from ftkit.serve.listen import at_port

    command = engine_command(chosen, names, at_port(address, bound), program=program)
    document["command"] = list(command.argv)
    log.info("%s", shlex.join(command.argv))
    raise typer.Exit(run_engine(command, url, ready=ready))
