"""From a recipe file and overrides to a checked `Recipe`, and back to YAML."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import Field, TypeAdapter, ValidationError

from ftkit.errors import Problem, RecipeError
from ftkit.nearest import did_you_mean
from ftkit.recipe.advise import AdviseSpec
from ftkit.recipe.anchor import anchor_paths
from ftkit.recipe.base import Section
from ftkit.recipe.compare import CompareSpec
from ftkit.recipe.hybrid import HybridRecipe
from ftkit.recipe.improve import TUNES, ImproveSpec
from ftkit.recipe.lora_family import FAMILY, LoRASettings
from ftkit.recipe.overrides import apply_overrides
from ftkit.recipe.rag import GENERATORS, RagRecipe
from ftkit.recipe.recipes import RECIPES, Recipe
from ftkit.recipe.sections import DataSection
from ftkit.recipe.yaml12 import KeyPath, read_yaml, to_yaml

# Pydantic's words where they would puzzle somebody who never saw Python.
_WORDS = {
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "string_type": "should be text",
    "bool_type": "should be true or false",
    "missing": "is required and not given",
    "none_required": "cannot be set yet; leave it null",
    "tuple_type": "should be a list",
    "too_short": "should not be empty",
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "union_tag_not_found": "should be a mapping of keys to values",
}

_VERBS = {"rag": "ftkit rag train", "compare": "ftkit compare", "hybrid": "ftkit train", "improve": "ftkit improve"}
# Keys that hold a method with what belongs to it, chosen by their own `recipe`.
_CHOSEN = {"generator": GENERATORS, "tune": TUNES}
Checked = TypeVar("Checked", RagRecipe, CompareSpec, HybridRecipe, ImproveSpec)
MAX_FIXES = 200


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe file, reporting every fault in one pass.

    Paths in the file are relative to the file's folder; ``output`` and overrides to the current one.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    values, place = _read(Path(path), overrides)
    return recipe_from_values(values, place)


def load_rag_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RagRecipe:
    """The same for ``recipe: rag``.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    checked = _load_kind("rag", RagRecipe, path, overrides)
    assert isinstance(checked, RagRecipe), "of that kind"
    return checked


def load_compare_spec(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> CompareSpec:
    """The same for ``recipe: compare``.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    checked = _load_kind("compare", CompareSpec, path, overrides)
    assert isinstance(checked, CompareSpec), "of that kind"
    return checked


def load_hybrid_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> HybridRecipe:
    """The same for ``recipe: hybrid``.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    checked = _load_kind("hybrid", HybridRecipe, path, overrides)
    assert isinstance(checked, HybridRecipe), "of that kind"
    return checked


def load_improve_spec(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> ImproveSpec:
    """The same for ``recipe: improve``.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    checked = _load_kind("improve", ImproveSpec, path, overrides)
    assert isinstance(checked, ImproveSpec), "of that kind"
    return checked


def load_advise_spec(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> AdviseSpec:
    """Read a situation for ``ftkit advise``.

    Raises:
        RecipeError: Listing each fault with file and line, or with the override that caused it.
    """
    values, place = _read(Path(path), overrides)
    try:
        return AdviseSpec.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_problems(error, AdviseSpec, values, place)) from None


def kind_of(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> str | None:
    """What a file calls itself under ``recipe``, unchecked; None where that is no text."""
    kind = _read(Path(path), overrides)[0].get("recipe")
    return kind if isinstance(kind, str) else None


def _load_kind(
    wanted: str, section: type[Checked], path: str | os.PathLike[str], overrides: Sequence[str]
) -> Checked:
    values, place = _read(Path(path), overrides)
    kind = values.get("recipe")
    if kind != wanted:
        verb = _VERBS.get(kind, "ftkit train" if kind in RECIPES else None) if isinstance(kind, str) else None
        fix = f"Write recipe: {wanted}" if verb is None else f"Run: {verb} {path}"
        raise RecipeError(Problem(where=f"{place(('recipe',))}: recipe", what=f"{kind!r} is not {wanted}", fix=fix))
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_problems(error, section, values, place)) from None


def _read(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Callable[[KeyPath], str]]:
    """A file's values with overrides, every path absolute, and what tells a key's place in the person's words."""
    document = read_yaml(path)
    here = path.resolve().parent
    values, origins = apply_overrides(anchor_paths(document.values, here), overrides)
    values = anchor_paths(values, Path.cwd())

    def place(key_path: KeyPath) -> str:
        for length in range(len(key_path), 0, -1):
            if (origin := origins.get(key_path[:length])) is not None:
                return f"override {origin!r}"
            if (line := document.lines.get(key_path[:length])) is not None:
                return f"{path}:{line}"
        # No such key in the file: an override of something below it made it.
        made_by = (origin for changed, origin in origins.items() if key_path == changed[: len(key_path)])
        return next((f"override {origin!r}" for origin in made_by if key_path), str(path))

    return values, place


def recipe_from_values(values: dict[str, Any], place: Callable[[KeyPath], str]) -> Recipe:
    """Check plain values.

    Args:
        values: As read from YAML.
        place: Gives the place in the person's own words for a key path.

    Raises:
        RecipeError: Listing every fault.
    """
    kind = values.get("recipe")
    if isinstance(kind, str) and kind in _VERBS:
        what = f"{kind!r} is not one model's training"
        raise RecipeError(
            Problem(where=f"{place(('recipe',))}: recipe", what=what, fix=f"Run it with `{_VERBS[kind]}`.")
        )
    if not isinstance(kind, str) or kind not in RECIPES:
        what = "is required and not given" if kind is None else f"{kind!r} is not a recipe"
        fix = did_you_mean(kind, RECIPES) if isinstance(kind, str) else f"Known: {', '.join(RECIPES)}."
        raise RecipeError(Problem(where=f"{place(('recipe',))}: recipe", what=what, fix=fix))
    try:
        return RECIPES[kind].model_validate(values)
    except ValidationError as error:
        raise RecipeError(_problems(error, RECIPES[kind], values, place)) from None


def recipe_error(error: ValidationError, recipe: type[Recipe], values: dict[str, Any]) -> RecipeError:
    """The same report for a recipe that was built in Python."""
    return RecipeError(_problems(error, recipe, values, lambda _: recipe.__name__))


def dump_recipe(recipe: Recipe | RagRecipe | CompareSpec | HybridRecipe | ImproveSpec) -> str:
    """The recipe as YAML with every default written out and every path absolute."""
    return to_yaml(anchor_paths(recipe.model_dump(mode="json"), Path.cwd()))


def json_schema() -> dict[str, Any]:
    """JSON schema of the recipe file, for editors and for scripts."""
    every: Any = Annotated[
        Union[*RECIPES.values(), RagRecipe, CompareSpec, HybridRecipe, ImproveSpec], Field(discriminator="recipe")
    ]
    schema: dict[str, Any] = TypeAdapter(every).json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ftkit recipe", **schema}


def _problems(
    error: ValidationError,
    recipe: type[Recipe | RagRecipe | CompareSpec | HybridRecipe | ImproveSpec | AdviseSpec],
    values: dict[str, Any],
    place: Callable[[KeyPath], str],
) -> list[Problem]:
    found: dict[tuple[str, str], list[str]] = {}
    fixes: dict[tuple[str, str], str] = {}
    for fault in error.errors():
        if fault["type"] == "too_short" and fault["input"]:
            continue  # it only seems empty because none of its items is right; they are faults of their own
        key_path = _key_path(fault["loc"], values, missing=fault["type"] == "missing")
        key_path = _culprit(key_path, getattr(fault.get("ctx", {}).get("error"), "keys", ()), place)
        key = (place(key_path), ".".join(map(str, key_path)))
        if fault["type"] == "extra_forbidden":
            known = _known_keys(recipe, key_path[:-1], values)
            message = "unknown key"
            if len(fixes) < MAX_FIXES:
                fixes[key] = did_you_mean(str(key_path[-1]), known, what="Known keys")
        elif fault["type"] == "union_tag_invalid":
            kind = str(fault["ctx"]["tag"])
            of_generator = bool(key_path) and key_path[-1] in _CHOSEN
            name, known = ("recipe", list(RECIPES)) if of_generator else ("kind", ["lora", *FAMILY])
            key = (place((*key_path, name)), ".".join([*map(str, key_path), name]))
            message = f"{kind!r} is no recipe of a {key_path[-1]}" if of_generator else f"{kind!r} is no kind of lora"
            if not of_generator and recipe not in (RagRecipe, CompareSpec, ImproveSpec):
                message = f"{kind!r} is no kind of {recipe.model_fields['recipe'].default}"
            fixes[key] = did_you_mean(kind, known, what="Known recipes" if of_generator else "Known kinds")
        else:
            message = _WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
            message = message.replace("Input should be", "should be")
            if "input" in fault and fault["type"] not in ("missing", "value_error", "too_short"):
                message += f", not {fault['input']!r}"
        found.setdefault(key, []).append(message)
    return [
        Problem(
            where=": ".join(part for part in key if part),
            what=" or ".join(dict.fromkeys(messages)),
            fix=fixes.get(key, ""),
        )
        for key, messages in found.items()
    ]


def _key_path(loc: tuple[Any, ...], values: Any, *, missing: bool) -> KeyPath:
    """The part of pydantic's location that the person wrote; the rest names branches of a union."""
    path: list[str | int] = []
    for step in loc:
        if (isinstance(values, dict) and step in values) or (
            isinstance(values, list) and isinstance(step, int) and step < len(values)
        ):
            values = values[step]
        elif isinstance(values, list) and step == DataSection.OBVIOUS_KEY:
            continue  # a list that stands for its section
        elif isinstance(values, dict) and path[-1:] == ["method"] and step == values.get("kind", "lora"):
            continue  # pydantic names the member of the family that it chose
        elif isinstance(values, dict) and path[-1:] and path[-1] in _CHOSEN and step == values.get("recipe", "lora"):
            continue
        elif isinstance(step, int) and path[-1:] != [step] and not isinstance(values, (dict, list)):
            continue  # a bare value that stands for a list of one
        else:
            if missing and step == loc[-1]:
                path.append(step)
            break
        path.append(step)
    return tuple(path)


def _culprit(section: KeyPath, keys: Sequence[KeyPath], place: Callable[[KeyPath], str]) -> KeyPath:
    """Where to point when several keys clash: at one that an override changed, else at the likeliest."""
    paths = [(*section, *key) for key in keys] or [section]
    return next((path for path in paths if place(path).startswith("override ")), paths[0])


def _known_keys(section: type[Section], path: KeyPath, values: dict[str, Any]) -> list[str]:
    here: Any = values
    for step in path:
        here = here[step] if isinstance(here, dict) and step in here else here
        if isinstance(step, int):
            step = section.OBVIOUS_KEY or ""  # an item of a list that stands for its section
        if step in section.model_fields:
            inner = _section_in(section.model_fields[step].annotation)
            if step in _CHOSEN:
                inner = _CHOSEN[str(step)].get(here.get("recipe", "lora"), inner)
            if inner is LoRASettings:
                inner = FAMILY.get(here.get("kind", "lora"), LoRASettings)
            if inner is not None:
                section = inner
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
