"""What every part of a recipe has in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema


class ClashError(ValueError):
    """Settings that do not go together.

    Args:
        message: What is wrong.
        keys: The key paths that clash, below the section that raises this, the likeliest culprit first.
    """

    def __init__(self, message: str, *keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know and types it was not given.

    Where a section has one obvious key, ``OBVIOUS_KEY`` names it and a bare value stands for it:
    ``model: smollm2-135m`` is ``model: {path: smollm2-135m}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False)

    OBVIOUS_KEY: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _from_bare_value(cls, value: Any) -> Any:
        if cls.OBVIOUS_KEY is None or isinstance(value, (dict, cls)):
            return value
        return {cls.OBVIOUS_KEY: value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The section's schema, with the bare form of its obvious key beside it."""
        section = handler(core)
        if cls.OBVIOUS_KEY is None:
            return section
        bare = handler.resolve_ref_schema(section)["properties"][cls.OBVIOUS_KEY]
        return {"anyOf": [section, bare]}
