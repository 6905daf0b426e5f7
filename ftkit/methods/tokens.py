"""Tokens whose rows are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ftkit.errors import Problem, RecipeError


def require_known_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The ids of tokens that are written as text.

    Raises:
        RecipeError: Listing those that are not one token.
    """
    problems, found = [], []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or text == tokenizer.unk_token):
            found.append(int(ids[0]))
        else:
            problems.append(
                Problem(
                    where="method.trainable_tokens",
                    what=f"{text!r} is not one token of this vocabulary",
                    fix="Add it with model.added_tokens, which also trains it.",
                )
            )
    if problems:
        raise RecipeError(problems)
    return found


def rows_of(model: Any, ids: Sequence[int], *, whole: Sequence[str]) -> dict[str, list[int]]:
    """Where these tokens have rows, as PEFT takes it: the embedding, and the output head if it is not tied to it.

    Args:
        model: The base.
        ids: Of the tokens.
        whole: Names of modules that are trained as a whole, the rows with them.

    Raises:
        RecipeError: Of two untied matrices only one is trained whole; the rows of the other would stay.
    """
    if not ids:
        return {}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    covered = [table for table in {embedding, head} - {None} if _is_named(names[table], whole)]
    if not covered:
        return {names[table]: sorted(ids) for table in tables}
    if len(tables) == 2 and len(covered) == 1:
        raise RecipeError(
            f"method.modules_to_save: has {names[covered[0]]}, and the rows of trained tokens stand in "
            f"{names[next(table for table in tables if table is not covered[0])]} too, which is not tied to it",
            fix="Name both, or neither: the rows of trained tokens are trained without it.",
        )
    return {}


def _is_named(name: str, wanted: Sequence[str]) -> bool:
    return any(name == other or name.endswith(f".{other}") for other in wanted)
