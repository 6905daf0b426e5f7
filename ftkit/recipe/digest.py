"""What of a recipe decides the result, and how two recipes differ in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftkit.files import sha256_json
from ftkit.recipe.hybrid import HybridRecipe
from ftkit.recipe.rag import RagRecipe
from ftkit.recipe.recipes import Recipe


def recipe_digest(recipe: Recipe | RagRecipe | HybridRecipe) -> str:
    """SHA-256 of `decisive_values`."""
    return sha256_json(decisive_values(recipe))


def decisive_values(recipe: Recipe | RagRecipe | HybridRecipe) -> dict[str, Any]:
    """All that decides the result, apart from the data (which has its own digest) and places on disk."""
    if isinstance(recipe, HybridRecipe):
        return recipe.decisive()
    values = recipe.resolved().model_dump(mode="json")
    del values["output"]
    values["model"] = {key: value for key, value in values["model"].items() if key != "path"}
    if (template := values["model"]["chat_template"]) is not None:
        values["model"]["chat_template"] = Path(template).name
    for key in ("train", "validation"):
        if not isinstance(values["data"][key], float | None):
            del values["data"][key]
    if "forgetting" in values.get("evaluate", {}):
        del values["evaluate"]["forgetting"]  # places on disk; a resumed run holds their content to what it was
    if "corpus" in values:
        del values["corpus"]["sources"]
    return values


def recipe_differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """In words, key by key, how two of `decisive_values` differ."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += recipe_differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: was {json.dumps(old)}, is {json.dumps(new)}")
    return found
