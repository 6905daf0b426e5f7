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


def rows_of(model: Any, ids: Sequence[int]) -> dict[str, list[int]]:
    """Where these tokens have rows, as PEFT takes it: the embedding, and the output head if it is not tied to it."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    return {names[module]: sorted(ids) for module in modules}
