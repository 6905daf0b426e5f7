"""The recipe's section about what is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ftkit.recipe.base import Section
from ftkit.recipe.sections import PathText


class EvaluateSection(Section):
    """What is measured before and after training, on the validation rows."""

    samples: int = Field(default=4, ge=0, description="Answers shown before and after.")
    metrics: tuple[Literal["exact_match", "f1", "rouge_l"], ...] = Field(
        default=("exact_match",), description="Scores of generated answers."
    )
    max_examples: int = Field(default=100, ge=1, description="Validation examples that answers are generated for.")
    max_new_tokens: int = Field(default=256, ge=1, description="Longest generated answer, in tokens.")
    forgetting: tuple[PathText, ...] | None = Field(
        default=None,
        min_length=1,
        description="Files of general text and of probes that forgetting is measured on: text, or JSON lines of "
        "{text}, {query, choices, gold} or {context, continuation}.",
    )
    forgetting_rows: int = Field(default=100, ge=1, description="Rows of each kind that are used of those files.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = {key: tuple(one) if isinstance(one, list) else one for key, one in value.items()}
        if isinstance(value.get("forgetting"), str):
            value["forgetting"] = (value["forgetting"],)
        return value
