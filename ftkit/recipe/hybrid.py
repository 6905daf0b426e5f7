"""``recipe: hybrid``: several systems that answer as one."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.sections import PathText

Retrieval = Literal["none", "lexical", "dense", "hybrid"]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]


def _tuple(value: Any) -> Any:
    if value is None:
        return None
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


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


class MixtureSection(Section):
    """The weight of the member with passages beside the one without: the best of those tried on the dev questions."""

    weights: Annotated[tuple[Share, ...] | None, BeforeValidator(_tuple)] = Field(
        default=None, description="To try, beside 0 and 1. null: each twentieth."
    )
    temperatures: Annotated[tuple[Temperature, ...] | None, BeforeValidator(_tuple)] = Field(
        default=None,
        description="Of the softmax over passages' scores, to try. null: 0.01, 0.05, 0.2 and 1; of one passage 1.",
    )

    @model_validator(mode="after")
    def _something_to_try(self) -> MixtureSection:
        if self.temperatures == ():
            raise ClashError("names none to try; null tries the usual ones", ("temperatures",))
        return self


class MemorySection(Section):
    """What a model remembers beside its weights: what came next in texts and answers (kNN-LM)."""

    neighbours: int = Field(default=64, ge=1, description="Remembered places that count for a token.")
    precision: Literal["float16", "float32"] = Field(default="float16", description="dtype of what is kept of each.")
    questions: bool | PathText = Field(
        default=True,
        description="Whose answers are remembered too: true for half of data.train, by document, while the other "
        "half chooses the weight; or a file of others, none of them in data.train or data.validation, such as those "
        "that the member was trained on; or false.",
    )
    texts: Annotated[
        tuple[PathText, ...] | None,
        BeforeValidator(_tuple, json_schema_input_type=PathText | tuple[PathText, ...] | None),
    ] = Field(default=None, description="Documents to remember: files and folders. null: the member's own; []: none.")

    @model_validator(mode="after")
    def _something_to_remember(self) -> MemorySection:
        if self.texts == () and self.questions is False:
            raise ClashError("neither texts nor answers are remembered", ("texts",))
        return self


class HybridAnswerSection(Section):
    """How questions are answered."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Longest answer. null: as each member's index says; 64 for one without."
    )


class HybridRecipe(Section):
    """Systems that answer as one. ``ftkit train`` makes it; ``ftkit rag ask``, ``rag eval`` and ``serve`` take it."""

    version: Literal[1] = Field(default=1, description="Of the recipe format.")
    recipe: Literal["hybrid"] = "hybrid"
    kind: Literal["router", "mixture", "memory"] = Field(
        default="router",
        description="router: each question is answered by the member that suits it. mixture: next-token "
        "probabilities of a member without passages and of one that reads a passage at a time (RAG-token). memory: a "
        "member beside which counts what came next in remembered texts and answers (kNN-LM).",
    )
    members: dict[str, MemberSection] = Field(
        min_length=1, description="Name to system: of a router at least two, of a mixture two, of a memory one."
    )
    data: HybridDataSection
    router: RouterSection = RouterSection()
    mixture: MixtureSection = MixtureSection()
    memory: MemorySection = MemorySection()
    answer: HybridAnswerSection = HybridAnswerSection()
    output: str | None = Field(default=None, min_length=1, description="The run folder. null: runs/hybrid.")

    @model_validator(mode="after")
    def _members_fit(self) -> HybridRecipe:
        count = len(self.members)
        if self.kind == "router" and count < 2:
            raise ClashError("a router needs at least two members to choose from", ("members",))
        if self.kind == "memory" and count != 1:
            raise ClashError(f"a memory is of exactly one member, and there are {count}", ("members",))
        if self.kind == "mixture":
            self._require_halves()
        return self

    def _require_halves(self) -> None:
        members = self.members.values()
        if len(members) != 2:
            raise ClashError(f"a mixture is of exactly two members, and there are {len(members)}", ("members",))
        if all(one.retrieval == "none" for one in members):
            raise ClashError("a mixture needs one member with passages, and both have retrieval: none", ("members",))
        if all(one.index is not None and one.retrieval != "none" for one in members):
            raise ClashError(
                "a mixture needs one member without passages, and both have an index; give one retrieval: none",
                ("members",),
            )

    @model_validator(mode="after")
    def _sections_are_of_its_kind(self) -> HybridRecipe:
        # By value: a recipe that a run wrote out has every section, those of other kinds as they are by default.
        for kind, usual in (("router", RouterSection()), ("mixture", MixtureSection()), ("memory", MemorySection())):
            if kind != self.kind and getattr(self, kind) != usual:
                raise ClashError(f"is for kind: {kind}, and this is kind: {self.kind}", (kind,))
        return self

    @model_validator(mode="after")
    def _members_are_told_apart(self) -> HybridRecipe:
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
        del values["output"], values["data"]["train"], values["router"]["encoder"], values["memory"]["texts"]
        if isinstance(values["memory"]["questions"], str):
            del values["memory"]["questions"]
        for kind in {"router", "mixture", "memory"} - {self.kind}:
            del values[kind]
        if isinstance(values["data"]["validation"], str):
            del values["data"]["validation"]
        for member in values["members"].values():
            del member["path"], member["index"]
        return values
