"""The recipes that travel with ftkit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import OutputError, UsageError
from ftkit.nearest import did_you_mean
from ftkit.recipe.facts import MethodFacts, facts_of
from ftkit.recipe.load import load_recipe
from ftkit.recipe.yaml12 import read_yaml


@dataclass(frozen=True, kw_only=True)
class ShippedRecipe:
    """A recipe file that ships with ftkit: its name, file, method, and the comment at its head."""

    name: str
    path: Path
    method: MethodFacts
    about: str


def recipes_folder() -> Path:
    """Where the recipes stand: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> list[ShippedRecipe]:
    """All shipped recipes, by name."""
    return [_describe(path) for path in sorted(recipes_folder().glob("*.yaml"))]


def shipped_specs() -> list[tuple[str, str]]:
    """Recipes of whole systems and specs of comparisons: name, as ``compare/claims``, and what it is for."""
    folder = recipes_folder()
    paths = sorted(folder.glob("*/*.yaml"))
    return [(path.relative_to(folder).with_suffix("").as_posix(), _about(path)) for path in paths]


def _about(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("#")), "")


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _describe(path: Path) -> ShippedRecipe:
    recipe = load_recipe(path)
    method = facts_of(recipe.recipe, type(recipe.method), getattr(recipe.method, "kind", None))
    return ShippedRecipe(name=path.stem, path=path, method=method, about=_about(path))


def find_recipe(name_or_path: str) -> Path:
    """A recipe file named by its path, or by the name of a shipped one."""
    path = Path(name_or_path)
    # Not Path's own, which raise where a name is too long to be one.
    if os.path.exists(path) or path.suffix in (".yaml", ".yml") or os.sep in name_or_path:  # noqa: PTH110
        return path
    shipped = recipes_folder() / f"{name_or_path}.yaml"
    return shipped if os.path.isfile(shipped) else path  # noqa: PTH113


def copy_recipe(name: str, target: Path) -> list[Path]:
    """Copy a shipped recipe, and the data files it names by relative path, to start from.

    Args:
        name: Of a shipped recipe.
        target: The new recipe file, or a folder to put it in.

    Returns:
        Every file written.

    Raises:
        UsageError: There is no such recipe.
        OutputError: A file is in the way.
    """
    source = recipes_folder() / f"{name}.yaml"
    if not source.is_file():
        names = [*(recipe.name for recipe in shipped_recipes()), *(name for name, _ in shipped_specs())]
        raise UsageError(f"{name!r} is not a shipped recipe", fix=did_you_mean(name, names))
    if target.is_dir():
        target = target / source.name
    pairs = [(source, target)]
    for text in dict.fromkeys(_texts(read_yaml(source).values)):
        path = (source.parent / text).resolve()
        if not Path(text).is_absolute() and path.is_file() and path.is_relative_to(source.parent.resolve()):
            pairs.append((path, target.parent / path.relative_to(source.parent.resolve())))
    taken = [str(new) for _, new in pairs if new.exists()]
    if taken:
        raise OutputError(f"already there: {', '.join(taken)}", fix="Choose another place; nothing was written.")
    for old, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    return [new for _, new in pairs]
