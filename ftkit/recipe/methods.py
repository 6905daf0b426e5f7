"""The settings of each tuning method, as a person writes them; the methods themselves live in `ftkit.methods`.

LoRA and its relatives are in `ftkit.recipe.lora_family`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.sections import DEFAULT_EXPORTS, MERGED_KINDS, ExportKind


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple), Field(min_length=1)]
Quantization = Literal["nf4", "int8"]
# What loads an export of each kind; adapters are the methods' own affair.
ENGINES: dict[ExportKind, tuple[str, ...]] = {
    "merged": ("transformers", "vLLM", "SGLang", "TGI"),
    "gguf": ("llama.cpp", "Ollama"),
    "gguf-adapter": ("llama.cpp",),
    "nf4": ("transformers",),
    "onnx": ("onnxruntime-genai",),
}


class MethodSettings(Section):
    """What all methods declare about themselves, so that a wrong wish is refused when the recipe is read.

    Attributes:
        EXPORT_KINDS: What can be exported.
        DEFAULT_EXPORTS: What is exported where the recipe names nothing, as far as there is such an export.
        UNMERGEABLE: Why there is no merged export; empty where there is one.
        NO_GRADIENT_CHECKPOINTING: Why activations cannot be recomputed; empty where they can.
        NO_PACKING: Why examples cannot share a sequence; empty where they can.
        DEFAULT_LEARNING_RATE: Peak of AdamW where the recipe names none.
        ADAPTER_ENGINES: What serves the adapter as it is.
        TRAINABLE_SHARE: Trainable parameters over the base's, with default settings on smollm2-135m.
        WHEN: When to choose it, in one line.
    """

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]]
    DEFAULT_EXPORTS: ClassVar[tuple[ExportKind, ...]] = DEFAULT_EXPORTS
    UNMERGEABLE: ClassVar[str] = ""
    NO_GRADIENT_CHECKPOINTING: ClassVar[str] = ""
    NO_PACKING: ClassVar[str] = ""
    DEFAULT_LEARNING_RATE: ClassVar[float]
    ADAPTER_ENGINES: ClassVar[tuple[str, ...]] = ("PEFT",)
    TRAINABLE_SHARE: ClassVar[float]
    WHEN: ClassVar[str]

    @classmethod
    def engines(cls) -> tuple[str, ...]:
        """What can serve an export of this method."""
        adapter = cls.ADAPTER_ENGINES if "adapter" in cls.EXPORT_KINDS else ()
        others = [engine for kind in cls.EXPORT_KINDS for engine in ENGINES.get(kind, ())]
        return tuple(dict.fromkeys((*adapter, *others)))


class FullSettings(MethodSettings):
    """Full fine-tuning: the model's own weights are trained."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = MERGED_KINDS
    DEFAULT_LEARNING_RATE: ClassVar[float] = 2e-5
    TRAINABLE_SHARE: ClassVar[float] = 1.0
    WHEN: ClassVar[str] = "much data, a far domain; 16 bytes of memory a parameter"

    parameters: Literal["all"] | Names = Field(
        default="all",
        description="all, or patterns of parameter names such as model.layers.2[0-9].* (shell wildcards); "
        "the rest stays frozen.",
    )


class _SoftPromptSettings(MethodSettings):
    """What prefix and prompt tuning share."""

    NO_PACKING: ClassVar[str] = "its virtual tokens stand before a sequence, not before each example inside of one"
    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter",)

    num_virtual_tokens: int = Field(default=20, ge=1, description="Learned positions in front of every text.")
    init_text: str | None = Field(
        default=None,
        min_length=1,
        description="Text to start from with init: text; repeated up to num_virtual_tokens, never cut.",
    )

    @model_validator(mode="after")
    def _text_where_text_is_asked_for(self) -> _SoftPromptSettings:
        init = getattr(self, "init", None)
        if init == "text" and (self.init_text is None or not self.init_text.strip()):
            raise ClashError("init: text needs an init_text with words in it", ("init_text",), ("init",))
        if init != "text" and self.init_text is not None:
            raise ClashError(f"init_text is read only with init: text, not with {init}", ("init_text",), ("init",))
        return self


class PrefixSettings(_SoftPromptSettings):
    """Prefix tuning: learned keys and values in front of every layer's (Li and Liang 2021, arXiv:2101.00190)."""

    UNMERGEABLE: ClassVar[str] = "learned keys and values are no weights of the base's architecture"
    NO_GRADIENT_CHECKPOINTING: ClassVar[str] = (
        "the prefix travels in the key-value cache, which recomputing a layer would fill twice"
    )
    DEFAULT_LEARNING_RATE: ClassVar[float] = 1e-2
    TRAINABLE_SHARE: ClassVar[float] = 0.0017
    WHEN: ClassVar[str] = "many tasks on one base; tone and format more than facts"

    init: Literal["data", "text", "random"] = Field(
        default="data",
        description="Where the prefix starts: the keys and values that the base gives to the beginning of the "
        "training data, or to init_text, or random ones. Random ones disturb the base at first.",
    )
    prefix_projection: bool = Field(
        default=False, description="Learn the prefix through a two-layer network, which the export has no need of."
    )
    encoder_hidden_size: int | None = Field(
        default=None, ge=1, description="Width of that network. null: the width of the model."
    )

    @model_validator(mode="before")
    @classmethod
    def _a_projected_prefix_starts_at_random(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("prefix_projection") is True and "init" not in value:
            return {**value, "init": "random"}
        return value

    @model_validator(mode="after")
    def _a_projection_has_no_start(self) -> PrefixSettings:
        if self.prefix_projection and self.init != "random":
            raise ClashError(
                f"init: {self.init} names keys and values, and a projection cannot be solved for them; use "
                "init: random, or prefix_projection: false",
                ("init",),
                ("prefix_projection",),
            )
        if self.encoder_hidden_size is not None and not self.prefix_projection:
            raise ClashError(
                "encoder_hidden_size is the width of the projection; set prefix_projection: true",
                ("encoder_hidden_size",),
            )
        return self


class PromptSettings(_SoftPromptSettings):
    """Prompt tuning: learned embeddings in front of every text (Lester et al. 2021, arXiv:2104.08691)."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter", *MERGED_KINDS)
    # A merged model takes a tokenizer that lets the prompt stand before BOS, which not every base has.
    DEFAULT_EXPORTS: ClassVar[tuple[ExportKind, ...]] = ("adapter",)
    DEFAULT_LEARNING_RATE: ClassVar[float] = 3e-2
    TRAINABLE_SHARE: ClassVar[float] = 0.000086
    WHEN: ClassVar[str] = "kilobytes a task on a large base; weak on small ones"

    init: Literal["vocabulary", "text", "random"] = Field(
        default="vocabulary",
        description="Where the prompt starts: embeddings of random tokens, of init_text, or of nothing.",
    )


class AdapterSettings(MethodSettings):
    """Bottleneck adapters: small layers inside every block (Houlsby et al. 2019, arXiv:1902.00751)."""

    EXPORT_KINDS: ClassVar[tuple[ExportKind, ...]] = ("adapter",)
    UNMERGEABLE: ClassVar[str] = "a bottleneck has a non-linearity inside, which no matrix of the base can hold"
    DEFAULT_LEARNING_RATE: ClassVar[float] = 1e-3
    ADAPTER_ENGINES: ClassVar[tuple[str, ...]] = ("ftkit",)
    TRAINABLE_SHARE: ClassVar[float] = 0.019
    WHEN: ClassVar[str] = "many tasks on one base; a little slower than the base"

    architecture: Literal["houlsby", "pfeiffer", "parallel"] = Field(
        default="houlsby",
        description="houlsby: after attention and after the feed-forward. pfeiffer: after the feed-forward "
        "(arXiv:2005.00247). parallel: beside the feed-forward (He et al. 2022, arXiv:2110.04366).",
    )
    reduction_factor: float = Field(default=16, gt=0, description="Width of the model over width of the bottleneck.")
    non_linearity: Literal["relu", "gelu", "gelu_new", "silu", "swish", "tanh", "leaky_relu"] = Field(
        default="relu", description="Between the two matrices."
    )
    scaling: float = Field(default=1.0, gt=0, description="Of the correction; He et al. use 4 with parallel.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the correction, while training.")
    quantization: Quantization | None = Field(
        default=None, description="Hold the frozen base in 4 (nf4) or 8 (int8) bits, as QLoRA does."
    )
