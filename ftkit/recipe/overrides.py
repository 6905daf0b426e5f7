"""Overrides on the command line: ``train.learning_rate=1e-4``, ``model=smollm2-135m``, ``~data.validation``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ftkit.errors import Problem, RecipeError
from ftkit.recipe.sections import DataSection, ModelSection
from ftkit.recipe.yaml12 import KeyPath, parse_value

# `model=X` keeps the section's other keys, where replacing the section would lose them in silence.
_OBVIOUS_KEYS = {"model": ModelSection.OBVIOUS_KEY, "data": DataSection.OBVIOUS_KEY}


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Change a recipe's plain values.

    Returns:
        The changed copy, and for each changed key path the override that set it.

    Raises:
        RecipeError: An override is neither ``key=value`` nor ``~key``, or passes through a value.
    """
    values = copy.deepcopy(values)
    origins: dict[KeyPath, str] = {}
    problems = []
    for override in overrides:
        try:
            origins[_apply(values, override)] = override
        except RecipeError as error:
            problems += [Problem(where=f"override {override!r}", what=problem.what) for problem in error.problems]
        except ValueError as error:
            problems.append(
                Problem(
                    where=f"override {override!r}", what=str(error), fix="Write section.key=value, or ~section.key."
                )
            )
    if problems:
        raise RecipeError(problems)
    return values, origins


def _apply(values: dict[str, Any], override: str) -> KeyPath:
    removing = override.startswith("~")
    key, equals, text = override.removeprefix("~").partition("=")
    path = key.strip().split(".")
    if removing == bool(equals) or not all(path):
        raise ValueError("is not of the form key=value or ~key")
    if len(path) == 1 and path[0] in _OBVIOUS_KEYS and not removing:
        new = parse_value(text)
        if not isinstance(new, dict):
            path.append(str(_OBVIOUS_KEYS[path[0]]))
    section = values
    for name in path[:-1]:
        inner = section.get(name)
        if inner is not None and not isinstance(inner, dict):
            obvious = _OBVIOUS_KEYS.get(name)
            if obvious is None:
                raise ValueError(f"{name} is a value, not a section")
            inner = {obvious: inner}
        section[name] = section = {} if inner is None else inner
    if removing:
        section.pop(path[-1], None)
    else:
        section[path[-1]] = parse_value(text)
    return tuple(path)
