"""The recipes that travel with ftkit."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import OutputError, UsageError
from ftkit.nearest import did_you_mean
from ftkit.recipe.facts import MethodFacts, facts_of
from ftkit.recipe.load import load_recipe


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


def _describe(path: Path) -> ShippedRecipe:
    head = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    recipe = load_recipe(path)
    method = facts_of(recipe.recipe, type(recipe.method), getattr(recipe.method, "kind", None))
    return ShippedRecipe(name=path.stem, path=path, method=method, about=head[0] if head else "")


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
        names = [recipe.name for recipe in shipped_recipes()]
        raise UsageError(f"{name!r} is not a shipped recipe", fix=did_you_mean(name, names))
    if target.is_dir():
        target = target / source.name
    pairs = [(source, target)]
    data = load_recipe(source).data
    named = [part.path for part in data.train] + list(data.evaluation)
    named += [data.validation] if isinstance(data.validation, str) else []
    named += [data.replay.path] if data.replay is not None else []
    for text in named:
        path = Path(text)
        if path.is_relative_to(source.parent.resolve()):
            pairs.append((path, target.parent / path.relative_to(source.parent.resolve())))
    taken = [str(new) for _, new in pairs if new.exists()]
    if taken:
        raise OutputError(f"already there: {', '.join(taken)}", fix="Choose another place; nothing was written.")
    for old, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    return [new for _, new in pairs]
