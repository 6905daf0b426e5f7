"""``ftkit selftest``: does everything that must not change the result leave it alone, on this recipe and data?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Overrides, Quiet, print_json
from ftkit.errors import VerificationError

MARKS = {True: "✓ ok", False: "✗ FAILED", None: "- not applicable"}


def selftest(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each short run.", metavar="N")] = 4,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hold the invariants on a recipe: batches, packs, a second run, a resumed one, exports.

    The runs are short and in a temporary folder; the recipe's own output is not touched.
    """
    from ftkit.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), overrides or [])  # before torch: a typo answers at once
    from ftkit.pipeline.selftest import selftest as hold

    outcome = hold(loaded, steps=steps, quiet=quiet)
    if as_json:
        print_json(outcome.to_dict())
        if not outcome.passed:  # the one document says what failed
            raise typer.Exit(VerificationError.exit_code)
    elif not quiet:
        typer.echo("\n".join(_in_words(check) for check in outcome.checks))
    outcome.require_passed()


def _in_words(check: Any) -> str:
    return f"{MARKS[check.passed]:16} {check.name:16} {check.detail}"
