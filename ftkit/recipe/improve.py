"""``recipe: improve``: from what was answered in service, by consent, to a better model, if it is one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.rag import (
    AdapterGenerator,
    FullGenerator,
    LoRAGenerator,
    PrefixGenerator,
    PromptGenerator,
    QLoRAGenerator,
)
from ftkit.recipe.sections import DataSection, ModelSection, PathText, SourceSection, TrainSection


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class FormerData(DataSection):
    """What is trained on beside the log, and how rows are read: the keys of a recipe's data section."""

    train: Annotated[
        tuple[SourceSection, ...],
        BeforeValidator(_tuple, json_schema_input_type=SourceSection | tuple[SourceSection, ...]),
    ] = Field(default=(), description="Rows that the model in service was trained on; trained on again with the log.")
    validation: Annotated[float, Field(ge=0, lt=1)] | PathText | None = Field(
        default=None, description="Held back from training. null: none, as the frozen test alone decides."
    )
    overflow: Literal["error", "drop", "truncate"] = Field(
        default="drop", description="What happens to a longer example; data_report.json counts it."
    )

    @model_validator(mode="after")
    def _is_counted(self) -> FormerData:
        if self.streaming:
            raise ClashError("every row of a log is accounted for, so nothing is streamed", ("streaming",))
        return self


class _Tuned(Section):
    """What every way of tuning has beside its method."""

    train: TrainSection = TrainSection()
    data: FormerData = FormerData()


class FullTune(FullGenerator, _Tuned):
    """All weights are trained."""


class LoRATune(LoRAGenerator, _Tuned):
    """LoRA or one of its relatives."""


class QLoRATune(QLoRAGenerator, _Tuned):
    """LoRA on a quantised base."""


class PrefixTune(PrefixGenerator, _Tuned):
    """Prefix tuning."""


class PromptTune(PromptGenerator, _Tuned):
    """Prompt tuning."""


class AdapterTune(AdapterGenerator, _Tuned):
    """Bottleneck adapters."""


TUNES: dict[str, type[Section]] = {
    "full": FullTune,
    "lora": LoRATune,
    "qlora": QLoRATune,
    "prefix": PrefixTune,
    "prompt": PromptTune,
    "adapter": AdapterTune,
}
Tune = Annotated[
    FullTune | LoRATune | QLoRATune | PrefixTune | PromptTune | AdapterTune, Field(discriminator="recipe")
]


class GateSection(Section):
    """When a candidate takes the place of what is in service."""

    metric: Literal["nll", "exact_match", "f1"] = Field(
        default="nll", description="What is compared, question by question; of nll the lower is the better."
    )
    level: float = Field(default=0.05, gt=0, lt=1, description="Largest p-value, two-sided, of a promotion.")
    margin: float = Field(default=0.0, ge=0, description="By more than this the candidate must be better.")
    forgetting: PathText | None = Field(
        default=None, description="General text, or JSON lines of {text}, that the candidate must not have forgotten."
    )
    max_forgetting: float = Field(
        default=0.05, ge=0, description="Bits per byte of that text by which the candidate may be worse."
    )
    max_new_tokens: int = Field(default=256, ge=1, description="Longest answer of exact_match and f1, in tokens.")


class ImproveSpec(Section):
    """From a log of answers to a candidate, and to its promotion. ``ftkit improve`` runs it."""

    version: Literal[1] = Field(default=1, description="Of the format.")
    recipe: Literal["improve"] = "improve"
    log: Annotated[tuple[PathText, ...], BeforeValidator(_tuple)] = Field(
        min_length=1, description="Files that `ftkit serve --log` wrote, in the order of time."
    )
    current: PathText = Field(
        description="What is in service at the beginning: a run, an export or a model. Later it is what was promoted."
    )
    model: ModelSection | None = Field(
        default=None, description="The base that is tuned. null: that of what is in service at the beginning."
    )
    tune: Tune = LoRATune()
    test: PathText = Field(
        description="The frozen test: rows of {messages}, or of {question, answers}. It must never change."
    )
    gate: GateSection = GateSection()
    fewest: int = Field(default=20, ge=1, description="Rows that must be left of the log for a round to begin.")
    output: str | None = Field(default=None, min_length=1, description="The folder. null: runs/improve.")

    @model_validator(mode="before")
    @classmethod
    def _tune_by_name(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "tune" not in value:
            return value
        tune = value["tune"]
        if isinstance(tune, str):
            tune = {"recipe": tune}
        return {**value, "tune": {"recipe": "lora", **tune} if isinstance(tune, dict) else tune}

    def resolved(self) -> ImproveSpec:
        """The same with every default that depends on the method written out."""
        rate = self.tune.train.learning_rate or self.tune.method.DEFAULT_LEARNING_RATE
        train = self.tune.train.model_copy(update={"learning_rate": rate})
        return self.model_copy(
            update={
                "tune": self.tune.model_copy(update={"train": train}),
                "output": self.output or "runs/improve",
            }
        )
