"""The public recipe classes. They differ in the type of ``method`` and in nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.evaluating import EvaluateSection
from ftkit.recipe.lora_family import LoRAFamily, LoRASettings, QLoRASettings
from ftkit.recipe.methods import AdapterSettings, FullSettings, MethodSettings, PrefixSettings, PromptSettings
from ftkit.recipe.sections import (
    MERGED_KINDS,
    DataSection,
    ExportSection,
    ModelSection,
    TrainSection,
)


def _exports(value: Any) -> Any:
    if value is None:
        return None
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class Recipe(Section):
    """A complete run as data: what to train, on what, how, and what to hand over. ``ftkit.run(recipe)`` runs it."""

    version: Literal[1] = Field(default=1, description="Of the recipe format.")
    recipe: str = Field(description="The method.")
    model: ModelSection
    data: DataSection
    method: MethodSettings
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    export: Annotated[
        tuple[ExportSection, ...] | None,
        BeforeValidator(_exports, json_schema_input_type=ExportSection | tuple[ExportSection, ...] | None),
    ] = Field(
        default=None,
        description="Artefacts to write and verify. null: adapter and merged, where there are.",
    )
    output: str | None = Field(default=None, min_length=1, description="The run folder. null: runs/ and the method.")

    @model_validator(mode="after")
    def _the_method_can_do_it(self) -> Recipe:
        kinds = self.method.EXPORT_KINDS
        asked = [export.kind for export in self.export or ()]
        for kind in asked:
            if kind not in kinds:
                because = f": {self.method.UNMERGEABLE}" if kind in MERGED_KINDS else ""
                raise ClashError(
                    f"{self.recipe} has no {kind!r} export; it has {', '.join(map(repr, kinds))}{because}",
                    ("export",),
                    ("recipe",),
                )
        if len(set(asked)) < len(asked):
            raise ClashError("a kind of export is named twice; each is written to export/KIND", ("export",))
        if self.train.gradient_checkpointing and self.method.NO_GRADIENT_CHECKPOINTING:
            raise ClashError(
                f"{self.recipe} cannot be trained with gradient_checkpointing: "
                f"{self.method.NO_GRADIENT_CHECKPOINTING}; use a lower micro_batch_size",
                ("train", "gradient_checkpointing"),
                ("recipe",),
            )
        if self.data.packing is True and self.method.NO_PACKING:
            raise ClashError(
                f"{self.recipe} cannot be trained with packing: {self.method.NO_PACKING}; use auto or false",
                ("data", "packing"),
                ("recipe",),
            )
        if self.data.packing is True and self.train.micro_batch_size != "auto":
            raise ClashError(
                "packs are cut by tokens, not by examples: leave micro_batch_size at auto, or set packing to false",
                ("train", "micro_batch_size"),
                ("data", "packing"),
            )
        return self

    @model_validator(mode="after")
    def _a_stream_has_an_end_and_no_memory(self) -> Recipe:
        data = self.data
        if not data.streaming:
            return self
        if self.train.max_steps is None:
            raise ClashError(
                "streaming data has no length, so train.max_steps must say when training ends",
                ("data", "streaming"),
                ("train", "max_steps"),
            )
        needs_all = {
            "dedup": data.dedup != "off",
            "near_duplicates": data.near_duplicates is True,
            "replay": data.replay is not None,
            "evaluation": bool(data.evaluation),
        }
        for key, is_set in needs_all.items():
            if is_set:
                raise ClashError(f"streaming never sees all rows at once, which {key} needs", ("data", key))
        for source in data.train:
            for key, is_set in (("weight", source.weight != 1), ("max_rows", source.max_rows is not None)):
                if is_set:
                    raise ClashError(f"streaming never sees all rows at once, which {key} needs", ("data", "train"))
        return self

    def resolved(self) -> Recipe:
        """The same recipe with every default that depends on the method written out."""
        export = self.export
        if export is None:
            export = tuple(
                ExportSection(kind=kind) for kind in self.method.DEFAULT_EXPORTS if kind in self.method.EXPORT_KINDS
            )
        rate = self.train.learning_rate or self.method.DEFAULT_LEARNING_RATE
        return self.model_copy(
            update={
                "export": export,
                "train": self.train.model_copy(update={"learning_rate": rate}),
                "output": self.output or f"runs/{self.recipe}",
            }
        )


class FullRecipe(Recipe):
    """Full fine-tuning."""

    recipe: Literal["full"] = "full"
    method: FullSettings = FullSettings()


class LoRARecipe(Recipe):
    """LoRA, and by ``method: {kind: ...}`` its relatives."""

    recipe: Literal["lora"] = "lora"
    method: LoRAFamily = LoRASettings()


class QLoRARecipe(Recipe):
    """QLoRA."""

    recipe: Literal["qlora"] = "qlora"
    method: QLoRASettings = QLoRASettings()


class PrefixRecipe(Recipe):
    """Prefix tuning."""

    recipe: Literal["prefix"] = "prefix"
    method: PrefixSettings = PrefixSettings()


class PromptRecipe(Recipe):
    """Prompt tuning."""

    recipe: Literal["prompt"] = "prompt"
    method: PromptSettings = PromptSettings()


class AdapterRecipe(Recipe):
    """Bottleneck adapters."""

    recipe: Literal["adapter"] = "adapter"
    method: AdapterSettings = AdapterSettings()


RECIPES: dict[str, type[Recipe]] = {
    "full": FullRecipe,
    "lora": LoRARecipe,
    "qlora": QLoRARecipe,
    "prefix": PrefixRecipe,
    "prompt": PromptRecipe,
    "adapter": AdapterRecipe,
}
