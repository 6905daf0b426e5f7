"""``ftkit schema``: the JSON schema of the recipe file."""

from __future__ import annotations

from ftkit.cli.output import Json, Quiet, print_json


def schema(as_json: Json = False, quiet: Quiet = False) -> None:
    """Print the JSON schema of the recipe file, for editors."""
    del as_json, quiet  # it is JSON and nothing else in any case
    from ftkit.recipe import json_schema

    print_json(json_schema())
