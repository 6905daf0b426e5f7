"""``recipe: compare``: systems side by side on one workload."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.comparing import ClaimSection, CombinationSection, ContrastSection, MeasureSection, StagedSection
from ftkit.recipe.rag import (
    STAGES,
    AnswerSection,
    CorpusSection,
    Generator,
    JointSection,
    LoRAGenerator,
    ReaderSection,
    RetrieverSection,
    Stage,
)
from ftkit.recipe.sections import ModelSection, PathText, TrainSection

Retrieval = Literal["none", "lexical", "dense", "hybrid", "oracle"]
Learns = Literal["questions", "documents"]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class WorkloadSection(Section):
    """Questions: to learn from, to choose by, and to be measured on."""

    train: PathText = Field(description="Questions to train on: {question, answers, document}.")
    test: PathText = Field(description="Questions that all systems are measured on; nothing learns from them.")
    validation: Annotated[float, Field(ge=0, lt=1)] | PathText | None = Field(
        default=0.1, description="Held back from the training questions by document, or a file. null or 0: none."
    )
    max_length: int = Field(default=1024, ge=2, description="Longest prompt with its answer, in tokens.")
    max_train: int | None = Field(default=None, ge=2, description="At most so many training questions, drawn.")
    max_test: int | None = Field(default=None, ge=2, description="At most so many test questions, drawn.")


class SystemSection(Section):
    """One way of answering. Without any key: the base model, asked without passages."""

    retrieval: Retrieval = Field(
        default="none",
        description="Where passages come from: nowhere, words (BM25), vectors, both, or (oracle) the right ones.",
    )
    stages: Annotated[tuple[Stage, ...], BeforeValidator(_tuple)] = Field(
        default=(), description="What is trained of a system with passages: reader, retriever, joint."
    )
    learns: Annotated[tuple[Learns, ...], BeforeValidator(_tuple)] = Field(
        default=(),
        description="What is fine-tuned without passages: on questions, documents or both. With retrieval the tuned "
        "generator is given passages all the same.",
    )
    generator: Generator | None = Field(default=None, description="Instead of the one that all share.")
    passages: int | None = Field(default=None, ge=1, description="Passages given, instead of reader.passages.")
    hops: Literal[1, 2] | None = Field(default=None, description="Searches for a question, instead of answer.hops.")

    combines: CombinationSection | None = Field(
        default=None, description="Other systems of this comparison as one; it has no other key then."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> SystemSection:
        if self.combines is not None and (more := self.model_fields_set - {"combines"}):
            raise ClashError("a combination is what its systems are", (sorted(more)[0],))
        if self.retrieval == "none" and self.stages:
            raise ClashError("stages need passages; without retrieval a system has learns", ("stages",))
        if self.stages and self.learns:
            raise ClashError("a system is trained with passages (stages) or without them (learns)", ("learns",))
        if {"retriever", "joint"} & set(self.stages) and self.retrieval in ("lexical", "oracle"):
            raise ClashError(
                f"a trained retriever is not asked where passages come from {self.retrieval}", ("retrieval",)
            )
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages]:
            raise ClashError(f"must be some of {', '.join(STAGES)}, each once, in this order", ("stages",))
        return self

    @property
    def trains(self) -> bool:
        """Whether anything of its own learns."""
        return bool(self.stages or self.learns)


# The ladder: each rung adds one thing to what stands before it.
LADDER: dict[str, SystemSection] = {
    "closed-book": SystemSection(),
    "closed-book-tuned": SystemSection(learns=("questions", "documents")),
    "bm25": SystemSection(retrieval="lexical"),
    "dense": SystemSection(retrieval="dense"),
    "hybrid": SystemSection(retrieval="hybrid"),
    "oracle": SystemSection(retrieval="oracle"),
    "reader": SystemSection(retrieval="dense", stages=("reader",)),
    "reader-oracle": SystemSection(retrieval="oracle", stages=("reader",)),
    "retriever": SystemSection(retrieval="dense", stages=("retriever",)),
    "separate": SystemSection(retrieval="dense", stages=("reader", "retriever")),
    "joint": SystemSection(retrieval="dense", stages=("reader", "joint")),
}
LADDER_PRIMARY = (
    ContrastSection(a="joint", b="separate", metric="nll"),
    ContrastSection(a="joint", b="separate", metric="recall_at_5"),
    ContrastSection(a="joint", b="reader", metric="nll"),
    ContrastSection(a="joint", b="reader", metric="recall_at_5"),
    ContrastSection(a="separate", b="reader", metric="nll"),
    ContrastSection(a="retriever", b="dense", metric="recall_at_5"),
    ContrastSection(a="retriever", b="dense", metric="answer_recall_at_1"),
    ContrastSection(a="joint", b="separate", metric="answer_recall_at_1"),
    ContrastSection(a="reader", b="dense", metric="nll"),
    ContrastSection(a="reader", b="closed-book-tuned", metric="nll"),
)


def _systems(value: Any) -> Any:
    """``ladder`` and names of its rungs stand for what they are."""
    if value == "ladder":
        return dict(LADDER)
    if isinstance(value, (str, list, tuple)):
        value = dict.fromkeys(_tuple(value))
    if not isinstance(value, dict):
        return value
    if unknown := [str(name) for name, system in value.items() if system is None and name not in LADDER]:
        raise ValueError(
            f"no rung of the ladder is called {', '.join(unknown)}; there are {', '.join(LADDER)}. A system of your "
            "own needs its settings: {retrieval: dense, stages: [reader]}"
        )
    return {name: LADDER[name] if system is None else system for name, system in value.items()}


class CompareSpec(Section):
    """Systems side by side on one workload. ``ftkit compare`` runs it."""

    OBVIOUS_KEY: ClassVar[str | None] = None

    version: Literal[1] = Field(default=1, description="Of the format.")
    recipe: Literal["compare"] = "compare"
    model: ModelSection
    corpus: CorpusSection
    data: WorkloadSection
    systems: Annotated[dict[str, SystemSection], BeforeValidator(_systems)] = Field(
        min_length=1, description="Name to system; `ladder`, or a list of its rungs, stands for those."
    )
    generator: Generator = LoRAGenerator()
    retriever: RetrieverSection = RetrieverSection()
    reader: ReaderSection = ReaderSection()
    joint: JointSection = JointSection()
    train: TrainSection = TrainSection()
    answer: AnswerSection = AnswerSection()
    equal_flops: str | None = Field(
        default=None,
        description="A system whose floating-point operations in training every other one with a tuned generator is "
        "given too, as near as whole steps come; others with the stage joint keep their own. null: each as the "
        "recipe says.",
    )
    seeds: Annotated[tuple[int, ...], BeforeValidator(_tuple)] = Field(
        default=(0,), min_length=1, description="Each trained system is trained once with each."
    )
    primary: tuple[ContrastSection, ...] | None = Field(
        default=None, description="What is tested, with Holm's correction. null: the ladder's own, as far as they go."
    )
    measure: MeasureSection = MeasureSection()
    claims: tuple[ClaimSection, ...] = Field(
        default=(), description="What is said of methods, to be supported or refuted; Holm's correction is theirs."
    )
    staged: StagedSection | None = Field(default=None, description="Enhancement rung by rung. null: none.")
    budget: float | None = Field(
        default=None, gt=0, description="Minutes; questions and steps are drawn down to fit. null: all there are."
    )
    output: str | None = Field(default=None, min_length=1, description="The folder. null: runs/compare.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            for key in ("primary", "claims"):
                if isinstance(value.get(key), list):
                    value[key] = tuple(value[key])
            if isinstance(value.get("generator"), str):
                value["generator"] = {"recipe": value["generator"]}
        return value

    @model_validator(mode="after")
    def _searches_alone(self) -> CompareSpec:
        if self.answer.reranker is not None:
            raise ClashError(
                "a comparison takes passages in the order of each system's search", ("answer", "reranker")
            )
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> CompareSpec:
        known = {
            *self.systems,
            *(f"{name}@{variant}" for name in self.systems for variant in self.variants_for(name)),
        }
        named: list[tuple[str, tuple[str, ...]]] = [
            (getattr(one, key), (section, str(number), key))
            for section in ("primary", "claims")
            for number, one in enumerate(getattr(self, section) or ())
            for key in ("a", "b")
        ]
        named += [(name, ("staged", "rungs")) for name in (self.staged.rungs if self.staged else ())]
        for name, place in named:
            if name not in known:
                raise ClashError(f"{name!r} is none of the systems: {', '.join(sorted(known))}", place)
        for key in ("variants_of", "imbalance_of", "updates_of"):
            for name in getattr(self.measure, key) or ():
                if name not in self.systems:
                    raise ClashError(f"{name!r} is none of the systems: {', '.join(self.systems)}", ("measure", key))
        if twice := [one.id for one in self.claims if [other.id for other in self.claims].count(one.id) > 1]:
            raise ClashError(f"{twice[0]!r} names two claims", ("claims",))
        if len(set(self.seeds)) < len(self.seeds):
            raise ClashError("names one seed twice", ("seeds",))
        reference = None if self.equal_flops is None else self.systems.get(self.equal_flops)
        if self.equal_flops is not None and (reference is None or "reader" not in reference.stages):
            raise ClashError(f"{self.equal_flops!r} is no system with the stage reader", ("equal_flops",))
        return self

    @model_validator(mode="after")
    def _combinations_are_of_systems(self) -> CompareSpec:
        for name, system in self.systems.items():
            if (combined := system.combines) is None:
                continue
            place = ("systems", name, "combines", "of")
            for one in combined.of:
                if one not in self.systems or self.systems[one].combines is not None:
                    plain = ", ".join(other for other, found in self.systems.items() if found.combines is None)
                    raise ClashError(f"{one!r} is no system that can be combined; there are {plain}", place)
            if combined.kind == "mixture":
                tuned, reader = (self.systems[one] for one in combined.of)
                if tuned.retrieval != "none" or reader.retrieval == "none":
                    raise ClashError("a mixture is of one without retrieval and one with it, in this order", place)
            if not self.data.validation:
                raise ClashError(
                    f"{name} is chosen by questions that are held back, and there are none: write a share or a file",
                    ("data", "validation"),
                )
        return self

    @model_validator(mode="after")
    def _all_are_asked_alike(self) -> CompareSpec:
        # Untrained systems are the base as it comes: a template that training alone sees would be another prompt.
        plain = ModelSection(path=self.model.path)
        for key in ("chat_template", "chat_template_kwargs", "added_tokens"):
            if getattr(self.model, key) != getattr(plain, key):
                raise ClashError(
                    "is not used by systems that are not trained, so prompts would differ; write it into the base "
                    "model's folder, or leave it out",
                    ("model", key),
                )
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """Other ways of training: a number of questions, noise, imbalance and what imbalance is held against."""
        measure = self.measure
        return (
            *(f"{count:g}" for count in measure.curve),
            *(("noise",) if measure.noise else ()),
            *(("imbalance", "balance") if measure.imbalance else ()),
        )

    def variants_for(self, name: str) -> tuple[str, ...]:
        """Those of `variants` that a system is trained in, too."""
        measure = self.measure
        uneven = measure.variants_of if measure.imbalance_of is None else measure.imbalance_of

        def is_for(variant: str) -> bool:
            chosen = uneven if variant in ("imbalance", "balance") else measure.variants_of
            return chosen is None or name in chosen

        return tuple(filter(is_for, self.variants)) if self.systems[name].trains else ()

    @property
    def varied(self) -> tuple[str, ...]:
        """Systems that are trained in any of these ways."""
        return tuple(name for name in self.systems if self.variants_for(name))

    def contrasts(self) -> tuple[ContrastSection, ...]:
        """What is tested."""
        if self.primary is not None:
            return self.primary
        return tuple(one for one in LADDER_PRIMARY if {one.a, one.b} <= set(self.systems))

    def resolved(self) -> CompareSpec:
        """The same with every default that depends on the method written out."""
        rate = self.train.learning_rate or self.generator.method.DEFAULT_LEARNING_RATE
        return self.model_copy(
            update={
                "train": self.train.model_copy(update={"learning_rate": rate}),
                "output": self.output or "runs/compare",
                "primary": self.contrasts(),
            }
        )
