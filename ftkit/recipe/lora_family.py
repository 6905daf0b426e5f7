"""Settings of LoRA, QLoRA, and the relatives of LoRA that ``method: {kind: ...}`` chooses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ftkit.recipe.base import ClashError
from ftkit.recipe.methods import MethodSettings, Names, Quantization
from ftkit.recipe.sections import MERGED_KINDS, ExportKind

Ranks = dict[str, Annotated[int, Field(ge=1)]]
Alphas = dict[str, Annotated[float, Field(gt=0)]]
Targets = Literal["all-linear"] | Names
_TARGETS = "all-linear (every linear layer but the output head), or names of layers such as q_proj."


class _MergeableSettings(MethodSettings):
    """Corrections that can be added to the base's own matrices."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter", *MERGED_KINDS)


class _LoRAOptions(_MergeableSettings):
    """What LoRA and QLoRA share."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 2e-4
    ADAPTER_ENGINES: ClassVar[tuple[str, ...]] = ("PEFT", "vLLM")
    TRAINABLE_SHARE: ClassVar[float] = 0.036

    rank: int = Field(default=16, ge=1, description="Width of the thin matrices.")
    alpha: float = Field(default=32, gt=0, description="The correction is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the first thin matrix.")
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)
    rank_pattern: Ranks = Field(
        default={}, description="Other ranks by layer name: {down_proj: 32, layers.0.mlp.up_proj: 8}."
    )
    alpha_pattern: Alphas = Field(default={}, description="Other alphas by layer name.")
    use_rslora: bool = Field(
        default=False, description="Scale by alpha / sqrt(rank), steadier at high ranks (arXiv:2312.03732)."
    )
    use_dora: bool = Field(
        default=False, description="Learn the length of each column apart from its direction (arXiv:2402.09353)."
    )
    loraplus_lr_ratio: float | None = Field(
        default=None,
        ge=1,
        description="LoRA+: the second thin matrix learns this many times faster; 16 is the paper's "
        "(arXiv:2402.12354). null: both learn alike.",
    )
    modules_to_save: Names | None = Field(
        default=None, description="Whole modules to train and export beside the thin matrices, such as lm_head."
    )
    trainable_tokens: Names | None = Field(
        default=None,
        description="Tokens whose embedding (and head) rows are trained too, as text: ['<|tool|>']. Tokens that "
        "model.chat_template adds to the vocabulary always are.",
    )

    @model_validator(mode="after")
    def _one_owner_of_the_embedding(self) -> _LoRAOptions:
        tables = ("embed", "head", "wte")
        if self.trainable_tokens and any(part in name for name in self.modules_to_save or () for part in tables):
            raise ClashError(
                "trainable_tokens trains rows of a module that modules_to_save trains as a whole; keep one",
                ("trainable_tokens",),
                ("modules_to_save",),
            )
        return self


class LoRASettings(_LoRAOptions):
    """LoRA: two thin matrices beside each chosen linear layer (Hu et al. 2021, arXiv:2106.09685)."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter", *MERGED_KINDS, "gguf-adapter")
    WHEN: ClassVar[str] = "the first to try: small files, little memory"

    kind: Literal["lora"] = Field(
        default="lora", description="LoRA itself; others: adalora, vera, ia3, oft, loha, lokr."
    )
    init: Literal["default", "gaussian", "pissa", "olora", "eva"] = Field(
        default="default",
        description="How the thin matrices start. default and gaussian: from the base exactly. pissa: from the "
        "largest singular vectors of each weight (arXiv:2404.02948), olora: from its QR decomposition "
        "(arXiv:2406.01775); both are exported as a correction of the original base, of twice the rank. eva: from "
        "what the training data does to each layer (arXiv:2410.07170).",
    )


class QLoRASettings(_LoRAOptions):
    """QLoRA: LoRA on a base held in 4 or 8 bits (Dettmers et al. 2023, arXiv:2305.14314)."""

    WHEN: ClassVar[str] = "base hardly fits: a quarter of its memory, but slower"

    quantization: Quantization = Field(default="nf4", description="How the frozen base is held.")
    double_quantization: bool = Field(
        default=True, description="nf4 only: the block scales are quantised too, saving about 0.4 bits a weight."
    )
    init: Literal["default", "gaussian", "loftq"] = Field(
        default="default",
        description="How the thin matrices start. loftq: from what quantising took away (arXiv:2310.08659).",
    )

    @model_validator(mode="before")
    @classmethod
    def _starts_that_change_the_base(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("init") in ("pissa", "olora"):
            raise ClashError(
                f"init: {value['init']} takes its matrices out of the base's weights, and what is left does not "
                "survive quantising exactly; use init: loftq, or recipe: lora",
                ("init",),
            )
        return value

    @model_validator(mode="after")
    def _what_quantised_layers_can_do(self) -> QLoRASettings:
        if self.init == "loftq" and self.quantization != "nf4":
            raise ClashError("init: loftq makes good what 4 bits lose; use quantization: nf4", ("init",))
        if self.quantization == "int8" and self.use_dora:
            raise ClashError(
                "DoRA needs the length of each column, and PEFT cannot read the columns of an int8 layer; use "
                "quantization: nf4",
                ("use_dora",),
                ("quantization",),
            )
        if self.init == "loftq" and self.use_dora:
            raise ClashError(
                "init: loftq starts beside the base, and DoRA's lengths are taken from the base alone; use one",
                ("init",),
                ("use_dora",),
            )
        return self


class AdaLoRASettings(_MergeableSettings):
    """AdaLoRA: the rank goes where it matters, learned in training (Zhang et al. 2023, arXiv:2303.10512)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 2e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.027
    WHEN: ClassVar[str] = "few parameters, spread over the layers by training"

    kind: Literal["adalora"]
    target_rank: int = Field(default=8, ge=1, description="Mean rank at the end.")
    initial_rank: int = Field(default=12, ge=1, description="Rank of each layer at the start.")
    alpha: float = Field(default=32, gt=0, description="Scale of the correction.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the first thin matrix.")
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="Share of the steps before ranks fall.")
    final_share: float = Field(default=0.3, ge=0, lt=1, description="Share of the steps after they have fallen.")
    allocation_every: int = Field(default=1, ge=1, description="Steps between two cuts.")
    orthogonality_weight: float = Field(default=0.5, ge=0, description="Weight of the orthogonality penalty.")

    @model_validator(mode="after")
    def _ranks_fall(self) -> AdaLoRASettings:
        if self.initial_rank <= self.target_rank:
            raise ClashError(
                f"initial_rank {self.initial_rank} is not above target_rank {self.target_rank}; ranks only fall",
                ("initial_rank",),
                ("target_rank",),
            )
        if self.warmup_share + self.final_share >= 1:
            raise ClashError(
                "warmup_share and final_share leave no step in which ranks can fall",
                ("warmup_share",),
                ("final_share",),
            )
        return self


class VeRASettings(_MergeableSettings):
    """VeRA: fixed random matrices shared by all layers, learned scales (Kopiczko et al. 2024, arXiv:2310.11454)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 4e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.0016
    WHEN: ClassVar[str] = "far fewer trained parameters than LoRA's"

    kind: Literal["vera"]
    rank: int = Field(default=256, ge=1, description="Width of the shared matrices.")
    initial_scale: float = Field(default=0.1, gt=0, description="Where the inner scales start.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the first matrix.")
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)


class IA3Settings(_MergeableSettings):
    """(IA)3: learned factors on keys, values and the feed-forward (Liu et al. 2022, arXiv:2205.05638)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 8e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.00043
    WHEN: ClassVar[str] = "very little data; fewest parameters that still merge"

    kind: Literal["ia3"]
    target_modules: Literal["auto"] | Names = Field(
        default="auto", description="auto: the layers that the paper scales, where PEFT knows the architecture."
    )
    feedforward_modules: Names | None = Field(
        default=None, description="Those of target_modules whose input is scaled instead of their output."
    )

    @model_validator(mode="after")
    def _feedforward_is_targeted(self) -> IA3Settings:
        if (self.feedforward_modules is None) != (self.target_modules == "auto"):
            raise ClashError(
                "target_modules and feedforward_modules go together: name both, or neither",
                ("feedforward_modules",),
                ("target_modules",),
            )
        stray = [name for name in self.feedforward_modules or () if name not in self.target_modules]
        if stray:
            raise ClashError(f"{', '.join(stray)}: not among target_modules", ("feedforward_modules",))
        return self


class OFTSettings(_MergeableSettings):
    """OFT: each layer's input is rotated in blocks (Qiu et al. 2023, arXiv:2306.07280)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 1e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.017
    WHEN: ClassVar[str] = "keep what the base knows: weights are only rotated"

    kind: Literal["oft"]
    block_size: int = Field(default=32, ge=2, description="Width of a rotated block; divides every layer's input.")
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)


class LoHaSettings(_MergeableSettings):
    """LoHa: the product, entry by entry, of two low-rank matrices (Hyeon-Woo et al. 2022, arXiv:2108.06098)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 1e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.036
    WHEN: ClassVar[str] = "higher rank than LoRA's for as many parameters"

    kind: Literal["loha"]
    rank: int = Field(default=8, ge=1, description="Rank of each of the two.")
    alpha: float = Field(default=8, gt=0, description="The correction is scaled by alpha / rank.")
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)


class LoKrSettings(_MergeableSettings):
    """LoKr: the Kronecker product of two small matrices (Edalati et al. 2022, arXiv:2212.10650)."""

    DEFAULT_LEARNING_RATE: ClassVar[float] = 1e-3
    TRAINABLE_SHARE: ClassVar[float] = 0.0016
    WHEN: ClassVar[str] = "high rank from very few parameters"

    kind: Literal["lokr"]
    rank: int = Field(default=8, ge=1, description="Rank of the second factor.")
    alpha: float = Field(default=8, gt=0, description="The correction is scaled by alpha / rank.")
    decompose_factor: Literal[-1] | Annotated[int, Field(ge=1)] = Field(
        default=-1, description="Size of the first factor; -1: as square as can be."
    )
    target_modules: Targets = Field(default="all-linear", description=_TARGETS)


def _kind(value: Any) -> Any:
    """``kind`` may be left out: it is LoRA then."""
    return value.get("kind", "lora") if isinstance(value, dict) else getattr(value, "kind", None)


LoRAFamily = Annotated[
    Annotated[LoRASettings, Tag("lora")]
    | Annotated[AdaLoRASettings, Tag("adalora")]
    | Annotated[VeRASettings, Tag("vera")]
    | Annotated[IA3Settings, Tag("ia3")]
    | Annotated[OFTSettings, Tag("oft")]
    | Annotated[LoHaSettings, Tag("loha")]
    | Annotated[LoKrSettings, Tag("lokr")],
    Discriminator(_kind),
]
FAMILY: dict[str, type[MethodSettings]] = {
    "adalora": AdaLoRASettings,
    "vera": VeRASettings,
    "ia3": IA3Settings,
    "oft": OFTSettings,
    "loha": LoHaSettings,
    "lokr": LoKrSettings,
}
