"""``recipe: rag``: a generator and a retriever trained together on questions about documents."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.lora_family import LoRAFamily, LoRASettings, QLoRASettings
from ftkit.recipe.methods import AdapterSettings, FullSettings, PrefixSettings, PromptSettings
from ftkit.recipe.sections import ModelSection, PathText, TrainSection

Stage = Literal["reader", "retriever", "joint"]
STAGES: tuple[Stage, ...] = ("reader", "retriever", "joint")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class CorpusSection(Section):
    """The documents, and how they are cut into passages."""

    OBVIOUS_KEY: ClassVar[str | None] = "sources"

    sources: Annotated[
        tuple[PathText, ...],
        BeforeValidator(_tuple, json_schema_input_type=PathText | tuple[PathText, ...]),
    ] = Field(min_length=1, description="Files and folders: text, Markdown, HTML, PDF, CSV, JSON lines.")
    passage_tokens: int | None = Field(
        default=None, ge=8, description="Longest passage, in the encoder's tokens. null: 160, or what it reads."
    )
    overlap_tokens: int = Field(default=0, ge=0, description="What a passage repeats of the one before it.")
    words: Literal["stems", "words", "trigrams"] = Field(
        default="stems", description="How word search cuts text: English stems, words, or three letters."
    )
    skip_unreadable: bool = Field(default=False, description="Leave out what cannot be read, and report it.")


class SyntheticSection(Section):
    """Questions made from the corpus, kept where they lead back to their answer (Alberti et al. 2019)."""

    OBVIOUS_KEY: ClassVar[str | None] = "count"

    count: int = Field(default=200, ge=1, description="Questions wanted.")
    least: int = Field(default=20, ge=1, description="Training does not begin with fewer than these, or than count.")
    generator: PathText | None = Field(
        default=None, description="Writes and checks them: a run, an export or a model. null: the recipe's own model."
    )
    seed: int = Field(default=0, ge=0, description="Of the order in which answers are tried.")
    tries: int = Field(default=10, ge=1, description="Most tries for each question wanted.")
    found_within: int = Field(default=10, ge=1, description="Rank by which the search must find the passage.")
    check: Literal["extract", "likelihood"] = Field(
        default="extract",
        description="extract: the generator must find the answer in the passage. likelihood: passage and question "
        "must make it likelier, for generators that cannot extract.",
    )
    f1: float = Field(default=0.6, gt=0, le=1, description="Least word F1 of what it finds.")
    margin: float = Field(default=0.25, ge=0, description="Least gain of the likelihood, in nats a token.")
    unanswerable: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of all made questions that no document answers, to be refused; they come beside count.",
    )


class QuestionsSection(Section):
    """Questions with answers: JSON lines of {question, answers, document}; document or documents may be left out."""

    OBVIOUS_KEY: ClassVar[str | None] = "train"

    train: PathText | None = Field(default=None, description="Questions to train on; null where all are synthetic.")
    synthetic: SyntheticSection | None = Field(
        default=None, description="Questions made from the corpus, alone or beside those of train."
    )
    validation: Annotated[float, Field(ge=0, lt=1)] | PathText | None = Field(
        default=0.1,
        description="A fraction of the training questions, chosen by their document so that no document is on both "
        "sides, or a file. null or 0: none.",
    )
    max_length: int = Field(default=1024, ge=2, description="Longest prompt with its answer, in tokens.")

    @model_validator(mode="after")
    def _asks_something(self) -> QuestionsSection:
        if self.train is None and self.synthetic is None:
            raise ClashError("name questions to train on, or let them be made: synthetic: {count: 200}", ("train",))
        return self


class FullGenerator(Section):
    """All weights of the generator are trained."""

    recipe: Literal["full"] = "full"
    method: FullSettings = FullSettings()


class LoRAGenerator(Section):
    """LoRA or one of its relatives."""

    recipe: Literal["lora"] = "lora"
    method: LoRAFamily = LoRASettings()


class QLoRAGenerator(Section):
    """LoRA on a quantised base."""

    recipe: Literal["qlora"] = "qlora"
    method: QLoRASettings = QLoRASettings()


class PrefixGenerator(Section):
    """Prefix tuning."""

    recipe: Literal["prefix"] = "prefix"
    method: PrefixSettings = PrefixSettings()


class PromptGenerator(Section):
    """Prompt tuning."""

    recipe: Literal["prompt"] = "prompt"
    method: PromptSettings = PromptSettings()


class AdapterGenerator(Section):
    """Bottleneck adapters."""

    recipe: Literal["adapter"] = "adapter"
    method: AdapterSettings = AdapterSettings()


GENERATORS: dict[str, type[Section]] = {
    "full": FullGenerator,
    "lora": LoRAGenerator,
    "qlora": QLoRAGenerator,
    "prefix": PrefixGenerator,
    "prompt": PromptGenerator,
    "adapter": AdapterGenerator,
}
Generator = Annotated[
    FullGenerator | LoRAGenerator | QLoRAGenerator | PrefixGenerator | PromptGenerator | AdapterGenerator,
    Field(discriminator="recipe"),
]


class ReaderSection(Section):
    """How the generator learns to read: the passage with the answer among others (RAFT, Zhang et al. 2024)."""

    passages: int = Field(default=3, ge=1, description="Passages that it is given, in training as in answering.")
    without_gold: float = Field(
        default=0.2, ge=0, lt=1, description="Share of the questions whose passages lack the answer, to be refused."
    )


class RetrieverSection(Section):
    """The encoders, and how they learn from the reader."""

    OBVIOUS_KEY: ClassVar[str | None] = "encoder"

    encoder: PathText = Field(default="all-minilm-l6-v2", description="A known encoder, a hub id or a folder.")
    train: Literal["auto", "query", "both", "none"] = Field(
        default="auto",
        description="Which encoders learn. auto: that of queries in the stage retriever, where the index stays as it "
        "is, and both in the stage joint.",
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate of the encoders.")
    epochs: float = Field(default=2, gt=0, description="Passes over the questions in the stage retriever.")
    temperature: float = Field(
        default=0.05, gt=0, description="Of the distribution over passages; scores are cosines."
    )
    reader_temperature: float = Field(
        default=0.5, gt=0, description="Of what the reader finds useful, in nats a token; lower trusts the best more."
    )
    candidates: int = Field(default=20, ge=2, description="Passages that vectors find for each question.")
    lexical_candidates: int = Field(default=2, ge=0, description="Passages that words find besides.")
    scored: int = Field(default=8, ge=2, description="How many of them the reader judges.")


class JointSection(Section):
    """Both together: the passage is a hidden variable of the answer's likelihood (RAG, Lewis et al. 2020)."""

    form: Literal["auto", "simultaneous", "alternating"] = Field(
        default="auto",
        description="simultaneous: one gradient for both. alternating: the reader judges once, then the retriever "
        "and the reader learn in turns (generalised EM on the same likelihood). auto: by what the device can do.",
    )
    rounds: int = Field(
        default=2, ge=1, description="How often the index is made anew with the encoders as they are."
    )
    passages: int = Field(default=4, ge=2, description="Passages of each question that both learn from.")
    distillation: float = Field(
        default=0.5, ge=0, description="Weight of the divergence from what the reader finds useful."
    )
    null_passage: bool = Field(default=True, description="Also weigh answering without any passage.")


class AnswerSection(Section):
    """How questions are answered."""

    mode: Literal["hybrid", "dense", "lexical"] = Field(
        default="hybrid", description="How passages are searched for."
    )
    max_new_tokens: int = Field(default=64, ge=1, description="Longest answer.")
    hops: Literal[1, 2] = Field(
        default=1, description="Searches for each question: 2 to search again with what the first passage brings."
    )
    reranker: PathText | None = Field(
        default=None, description="A cross-encoder that orders the first hits anew: a hub id or a folder. null: none."
    )
    reranked: int = Field(default=20, ge=1, description="How many hits it orders.")
    samples: int = Field(default=4, ge=0, description="Answers shown in the result; 0 also leaves out scoring them.")


class RagRecipe(Section):
    """Retriever and generator, trained in stages on questions about a corpus. ``ftkit rag train`` runs it."""

    version: Literal[1] = Field(default=1, description="Of the recipe format.")
    recipe: Literal["rag"] = "rag"
    model: ModelSection
    corpus: CorpusSection
    data: QuestionsSection
    generator: Generator = LoRAGenerator()
    retriever: RetrieverSection = RetrieverSection()
    reader: ReaderSection = ReaderSection()
    joint: JointSection = JointSection()
    stages: tuple[Stage, ...] = Field(
        default=STAGES, min_length=1, description="What is trained, in the order reader, retriever, joint."
    )
    train: TrainSection = TrainSection()
    answer: AnswerSection = AnswerSection()
    output: str | None = Field(default=None, min_length=1, description="The run folder. null: runs/rag.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("stages"), (str, list)):
            value = {**value, "stages": _tuple(value["stages"])}
        if isinstance(value.get("generator"), str):
            value = {**value, "generator": {"recipe": value["generator"]}}
        if isinstance(value.get("generator"), dict):
            value = {**value, "generator": {"recipe": "lora", **value["generator"]}}
        return value

    @model_validator(mode="after")
    def _stages_stand_in_order(self) -> RagRecipe:
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages]:
            raise ClashError(f"must be some of {', '.join(STAGES)}, each once, in this order", ("stages",))
        if "joint" in self.stages and "reader" not in self.stages:
            raise ClashError("joint training goes on from a trained reader: name the stage reader too", ("stages",))
        learns = {"retriever", "joint"} & set(self.stages)
        if self.retriever.train == "none" and "retriever" in self.stages:
            raise ClashError("the stage retriever has nothing to train with retriever.train: none", ("stages",))
        if learns and self.retriever.scored > self.retriever.candidates + self.retriever.lexical_candidates:
            raise ClashError(
                f"{self.retriever.scored} passages cannot be chosen from "
                f"{self.retriever.candidates + self.retriever.lexical_candidates} candidates",
                ("retriever", "scored"),
                ("retriever", "candidates"),
            )
        return self

    def resolved(self) -> RagRecipe:
        """The same recipe with every default that depends on the method written out."""
        rate = self.train.learning_rate or self.generator.method.DEFAULT_LEARNING_RATE
        return self.model_copy(
            update={
                "train": self.train.model_copy(update={"learning_rate": rate}),
                "output": self.output or "runs/rag",
            }
        )
