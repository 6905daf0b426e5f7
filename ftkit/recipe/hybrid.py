"""``recipe: hybrid``: several systems that answer as one."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.sections import PathText

Retrieval = Literal["none", "lexical", "dense", "hybrid"]
# A member's name is a folder's too, in exports and for kept answers.
MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class MemberSection(Section):
    """One of the systems: a generator, with or without documents."""

    OBVIOUS_KEY: ClassVar[str | None] = "path"

    path: PathText = Field(
        description="What answers: a run, an export, a model or a known name. A RAG run, an index or an export of "
        "either brings its own documents."
    )
    index: PathText | None = Field(default=None, description="An index or a RAG run to take passages from.")
    retrieval: Retrieval | None = Field(
        default=None, description="How passages are searched for; none: it is given none. null: as the index says."
    )
    passages: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many it is given at most. null: as the index says."
    )

    @model_validator(mode="after")
    def _gives_or_not(self) -> MemberSection:
        if self.retrieval == "none" and self.passages is not None:
            raise ClashError("with retrieval: none no passages are given", ("passages",))
        return self


class HybridDataSection(Section):
    """Questions that the hybrid learns from: {question, answers, document}, best of no member's training."""

    OBVIOUS_KEY: ClassVar[str | None] = "train"

    train: PathText = Field(description="Dev questions to learn from.")
    validation: Annotated[float, Field(ge=0, lt=1)] | PathText | None = Field(
        default=None,
        description="Questions that nothing learns from and that are only measured: a fraction, chosen by document "
        "so that no document is on both sides, or a file. null or 0: none.",
    )


class RouterSection(Section):
    """The classifier that sends each question to a member: multinomial logistic regression on its embedding."""

    OBVIOUS_KEY: ClassVar[str | None] = "encoder"

    encoder: PathText = Field(default="all-minilm-l6-v2", description="A known encoder, a hub id or a folder.")
    l2: float = Field(
        default=1.0, gt=0, description="Weight of the squared weights beside the mean cross-entropy a question."
    )
    folds: int = Field(default=5, ge=2, description="Of the cross-validation; no document is in two of them.")


class HybridAnswerSection(Section):
    """How questions are answered."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Longest answer. null: as each member's index says; 64 for one without."
    )


class HybridRecipe(Section):
    """Systems that answer as one. ``ftkit train`` makes it; ``ftkit rag ask``, ``rag eval`` and ``serve`` take it."""

    version: Literal[1] = Field(default=1, description="Of the recipe format.")
    recipe: Literal["hybrid"] = "hybrid"
    kind: Literal["router"] = Field(
        default="router", description="router: each question is answered by the member that suits it."
    )
    members: dict[str, MemberSection] = Field(min_length=1, description="Name to system; a router has at least two.")
    data: HybridDataSection
    router: RouterSection = RouterSection()
    answer: HybridAnswerSection = HybridAnswerSection()
    output: str | None = Field(default=None, min_length=1, description="The run folder. null: runs/hybrid.")

    @model_validator(mode="after")
    def _members_are_told_apart(self) -> HybridRecipe:
        if self.kind == "router" and len(self.members) < 2:
            raise ClashError("a router needs at least two members to choose from", ("members",))
        for name in self.members:
            if not MEMBER_NAME.fullmatch(name):
                raise ClashError(
                    f"{name!r} is no name of a member: letters, digits, '_', '-' and '.', first a letter or digit",
                    ("members",),
                )
        folded = [name.casefold() for name in self.members]
        if len(set(folded)) < len(folded):
            raise ClashError("two members have names that differ in case alone", ("members",))
        return self

    def resolved(self) -> HybridRecipe:
        """The same with its output written out."""
        return self.model_copy(update={"output": self.output or "runs/hybrid"})

    def decisive(self) -> dict[str, Any]:
        """What decides the result, apart from what stands on the disk: that has digests of its own."""
        values = self.resolved().model_dump(mode="json")
        del values["output"], values["data"]["train"], values["router"]["encoder"]
        if isinstance(values["data"]["validation"], str):
            del values["data"]["validation"]
        for member in values["members"].values():
            del member["path"], member["index"]
        return values
