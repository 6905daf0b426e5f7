"""``ftkit verify``: does an export still behave like the trained model?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json


def verify(
    folder: Annotated[Path, typer.Argument(help="An export folder.")], as_json: Json = False, quiet: Quiet = False
) -> None:
    """Check bytes, tokenizer, chat template and logits of an export, in a fresh process without network."""
    from ftkit.errors import VerificationError
    from ftkit.export.verify import verify_export
    from ftkit.notices import show_notices

    show_notices(quiet=quiet)
    outcome = verify_export(folder)
    if as_json:
        print_json(outcome.to_dict())
    elif not quiet:
        for check in outcome.checks:
            value = json.dumps(check.value) if isinstance(check.value, dict) else ""
            typer.echo(f"{'✓' if check.passed else '✗'} {check.name:22} {check.detail or value}")
    if not outcome.passed:
        if as_json:
            raise typer.Exit(VerificationError.exit_code)
        failed = ", ".join(check.name for check in outcome.failures)
        raise VerificationError(f"{folder}: failed {failed}", fix="Do not deploy it; export the run again.")
