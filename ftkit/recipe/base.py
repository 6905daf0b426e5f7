"""What every part of a recipe has in common."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know and types it was not given.

    Where a section has one obvious key, ``OBVIOUS_KEY`` names it and a bare value stands for it:
    ``model: smollm2-135m`` is ``model: {path: smollm2-135m}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    OBVIOUS_KEY: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _from_bare_value(cls, value: Any) -> Any:
        if cls.OBVIOUS_KEY is None or isinstance(value, (dict, cls)):
            return value
        return {cls.OBVIOUS_KEY: value}
