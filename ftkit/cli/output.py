"""Answers on stdout, everything else on stderr, errors with their exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ftkit.errors import FtkitError, Interrupted, OutputError, ResourceError
from ftkit.files import FULL, READ_ONLY, error_number

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only on stderr.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="section.key=value, ~section.key, model=X, data=X", show_default=False)
]


def print_json(value: Any) -> None:
    """The one document of ``--json``."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a name on disk that is not UTF-8, which stdout would refuse
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def guarded(command: Callable[[], None], *, as_json: bool, debug: bool) -> int:
    """Run a command; turn errors meant for people into a message and an exit code.

    Args:
        command: All of it.
        as_json: Also print the error as a JSON document on stdout.
        debug: Let the traceback through.

    Returns:
        The exit code.
    """
    try:
        command()
        return 0
    except FtkitError as error:
        if debug:
            raise
        return _report(error, as_json=as_json)
    except KeyboardInterrupt:
        return _report(Interrupted("interrupted"), as_json=as_json)
    except Exception as error:
        number = error_number(error)
        if debug or number not in FULL + READ_ONLY:
            raise
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        kind = ResourceError if number in FULL else OutputError
        fault = kind(
            f"{place}{os.strerror(number)}",
            fix="Free some space or choose another place; nothing was left half-written.",
        )
        return _report(fault, as_json=as_json)


def _report(error: FtkitError, *, as_json: bool) -> int:
    sys.stderr.write(f"{error}\n")
    if as_json:
        problems = [{"where": item.where, "what": item.what, "fix": item.fix} for item in error.problems]
        kind = type(error).__name__
        print_json({"error": {"kind": kind, "exit_code": error.exit_code, "problems": problems}})
    return error.exit_code
