"""``ftkit verify``: does an export still behave like the trained model, and a server treat it as training did?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.errors import UsageError, VerificationError


def verify(  # noqa: PLR0913 - a parameter an option
    folder: Annotated[Path, typer.Argument(help="An export folder, or a bundle's file.")],
    base: Annotated[
        Path | None, typer.Option("--base", help="Folder with an adapter's base model.", metavar="FOLDER")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="Check a bundle's signature with this key first.", metavar="KEY")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Ask the server at this URL for its tokens instead, and compare them with the export's.",
            metavar="URL",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The server's name for the model, where it serves several.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the server's key.", metavar="VAR")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for each request. 60 unless told.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check bytes, tokenizer, chat template and logits of an export or bundle, in a fresh process without network.

    With --endpoint: check that a running server makes of prompts the very tokens that training did; loads nothing.
    """
    if endpoint is not None:
        if base is not None or public_key is not None:
            raise UsageError("--base and --public-key are for exports on disk", fix="Leave out --endpoint.")
        from ftkit.pipeline.endpoint import verify_endpoint

        served = verify_endpoint(
            folder, endpoint, model=model, api_key_env=api_key_env, timeout_s=60.0 if timeout is None else timeout
        )
        _report(served, served.lines(), as_json=as_json, quiet=quiet)
        if not served.passed:
            total = len(served.conversations) + len(served.texts)
            raise VerificationError(
                f"{served.endpoint}: {len(served.failures)} of {total} prompts differ from {folder}",
                fix="Give the server this export's tokenizer and chat template, and start it again.",
            )
        return
    for option, value in (("--model", model), ("--api-key-env", api_key_env), ("--timeout", timeout)):
        if value is not None:
            raise UsageError(f"{option} is for servers", fix="Name one with --endpoint URL.")
    from ftkit.hybrid.proving import verify as check
    from ftkit.notices import show_notices

    show_notices(quiet=quiet)
    outcome = check(folder, base=base, public_key=public_key)
    _report(outcome, [_in_words(check) for check in outcome.checks], as_json=as_json, quiet=quiet)
    if not outcome.passed:
        failed = ", ".join(check.name for check in outcome.failures)
        raise VerificationError(f"{folder}: failed {failed}", fix="Do not deploy it; export the run again.")


def _report(outcome: Any, lines: list[str], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(outcome.to_dict())
        if not outcome.passed:  # the one document says what failed
            raise typer.Exit(VerificationError.exit_code)
    elif not quiet:
        typer.echo("\n".join(lines))


def _in_words(check: Any) -> str:
    value = json.dumps(check.value) if isinstance(check.value, dict) else ""
    return f"{'✓' if check.passed else '✗'} {check.name:22} {check.detail or value}"
