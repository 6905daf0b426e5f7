"""The settings of each tuning method, as a person writes them; the methods themselves live in `ftkit.methods`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ftkit.recipe.base import Section
from ftkit.recipe.sections import ExportKind


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class MethodSettings(Section):
    """What all methods declare about themselves, so that a wrong wish is refused when the recipe is read."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]]
    DEFAULT_LEARNING_RATE: ClassVar[float]


class FullSettings(MethodSettings):
    """Full fine-tuning: the model's own weights are trained."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("merged",)
    DEFAULT_LEARNING_RATE: ClassVar[float] = 2e-5

    parameters: Annotated[Literal["all"] | Names, BeforeValidator(_as_tuple)] = Field(
        default="all",
        description="all, or patterns of parameter names such as model.layers.2[0-9].* (shell wildcards); "
        "the rest stays frozen.",
    )


class LoRASettings(MethodSettings):
    """LoRA: two thin matrices beside each chosen linear layer (Hu et al. 2021, arXiv:2106.09685)."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter", "merged")
    DEFAULT_LEARNING_RATE: ClassVar[float] = 2e-4

    rank: int = Field(default=16, ge=1, description="Width of the thin matrices.")
    alpha: float = Field(default=32, gt=0, description="The correction is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the first thin matrix.")
    target_modules: Annotated[Literal["all-linear"] | Names, BeforeValidator(_as_tuple)] = Field(
        default="all-linear",
        description="all-linear (every linear layer but the output head), or names of layers such as q_proj.",
    )


class QLoRASettings(LoRASettings):
    """QLoRA: LoRA on a base held in 4 or 8 bits (Dettmers et al. 2023, arXiv:2305.14314)."""

    quantization: Literal["nf4", "int8"] = Field(default="nf4", description="How the frozen base is held.")
    double_quantization: bool = Field(
        default=True, description="nf4 only: the block scales are quantised too, saving about 0.4 bits a weight."
    )
