"""The sections of a recipe that are the same for every method.

The text of each ``description`` is the only documentation of its key: the JSON schema, ``ftkit schema`` and
the editors that read it take it from here.
"""

from __future__ import annotations

import keyword
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.rows import are_rows, store_rows

DType = Literal["float32", "bfloat16", "float16"]
DataFormat = Literal["auto", "messages", "sharegpt", "alpaca", "prompt-completion", "text", "preference"]
ExportKind = Literal["adapter", "merged", "nf4", "gguf", "gguf-adapter", "onnx"]
# What is written where a recipe names no exports, of those that its method has.
DEFAULT_EXPORTS: tuple[ExportKind, ...] = ("adapter", "merged")
# The kinds that start from a merged model, so that a method has all of them or none.
MERGED_KINDS: tuple[ExportKind, ...] = ("merged", "nf4", "gguf", "onnx")
EXPORT_DTYPES: dict[ExportKind, tuple[str, ...]] = {
    "adapter": ("auto",),
    "merged": ("auto", "float32", "bfloat16", "float16"),
    "nf4": ("auto",),
    "gguf": ("auto", "float32", "float16", "bfloat16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"),
    "gguf-adapter": ("auto",),
    "onnx": ("auto", "float32", "int4"),
}


def _path_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, Path) else value


PathText = Annotated[str, BeforeValidator(_path_text), Field(min_length=1)]


class ModelSection(Section):
    """The base model."""

    OBVIOUS_KEY: ClassVar[str | None] = "path"

    path: PathText = Field(description="A folder, a hub id, or a known name (see `ftkit models`).")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub id.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision of the weights and the arithmetic. auto: the checkpoint's own weights, computed in "
        "bfloat16 where the device is fast at it and in float32 elsewhere.",
    )
    chat_template: PathText | None = Field(
        default=None,
        description="Chat template for a tokenizer that has none: the name of a shipped one, or a Jinja file. "
        "Exported with the model.",
    )
    chat_template_kwargs: dict[str, str | bool | int | float | None] = Field(
        default={},
        description="Values of the chat template's own variables, such as {enable_thinking: false}. Used in training "
        "and written into the exported template as its defaults; a request that sets one itself still wins.",
    )
    added_tokens: Literal["auto"] | tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default="auto",
        description="Control tokens that the vocabulary lacks and that become tokens of their own, with trained rows "
        "in the embedding and the output head. auto: those that model.chat_template writes, such as <|im_start|>. "
        "A list names further ones, such as tool tags; [] adds none.",
    )

    # Names that a chat template gets from the engine or from Jinja, and arguments of apply_chat_template itself.
    RESERVED_VARIABLES: ClassVar[frozenset[str]] = frozenset({
        "messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
        "raise_exception", "strftime_now", "range", "dict", "lipsum", "cycler", "joiner", "namespace",
        "loop", "self", "super", "caller", "varargs", "kwargs", "true", "false", "none",
        "conversation", "chat_template", "tokenize", "padding", "truncation", "max_length", "return_tensors",
        "return_dict", "return_assistant_tokens_mask", "sanitize_control_tokens", "tokenizer_kwargs",
    })  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("added_tokens"), list):
            return {**value, "added_tokens": tuple(value["added_tokens"])}
        return value

    @model_validator(mode="after")
    def _template_variables_are_free_names(self) -> ModelSection:
        for name in self.chat_template_kwargs:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ClashError(f"{name!r} is not a name that a template can read", ("chat_template_kwargs", name))
            if name in self.RESERVED_VARIABLES:
                raise ClashError(f"{name!r} is set for every template already", ("chat_template_kwargs", name))
        return self

    @model_validator(mode="after")
    def _added_tokens_can_be_tokens(self) -> ModelSection:
        tokens = () if self.added_tokens == "auto" else self.added_tokens
        for token in tokens:
            if token != token.strip():
                raise ClashError(f"{token!r} begins or ends with a space", ("added_tokens",))
            if tokens.count(token) > 1:
                raise ClashError(f"{token!r} is listed twice", ("added_tokens",))
        return self


class _Origin(Section):
    """Where rows come from."""

    OBVIOUS_KEY: ClassVar[str | None] = "path"

    path: PathText = Field(
        description="A file, a folder of files, a folder that `datasets` saved, or a data set's hub id."
    )
    format: DataFormat = Field(default="auto", description="Overrides data.format for this source.")
    columns: dict[str, str] | None = Field(default=None, description="Overrides data.columns for this source.")
    max_rows: int | None = Field(default=None, ge=1, description="Take at most so many rows, drawn by seed.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a hub id.")
    subset: str | None = Field(default=None, description="Configuration of a hub id, where it has several.")
    split: str | None = Field(
        default=None, description="Split of a hub id or a saved data set. null: its train split."
    )


class SourceSection(_Origin):
    """One of several sources of rows."""

    weight: float = Field(
        default=1.0,
        gt=0,
        description="How often an epoch takes each row: 2 takes every row twice, 0.5 takes half of them, drawn by "
        "seed.",
    )


class ReplaySection(_Origin):
    """General data mixed in, so that the model keeps what it could do before."""

    share: float = Field(
        default=0.1, gt=0, lt=1, description="Share of an epoch's rows that is general data, drawn by seed."
    )


def _sources(value: Any) -> Any:
    if are_rows(value, SourceSection.model_fields):
        return [store_rows(value)]
    return value if isinstance(value, (list, tuple)) else [value]


_Sources = Annotated[tuple[SourceSection, ...], Field(min_length=1)]


class DataSection(Section):
    """What to train on."""

    OBVIOUS_KEY: ClassVar[str | None] = "train"

    train: Annotated[
        tuple[SourceSection, ...],
        BeforeValidator(lambda value: tuple(_sources(value)), json_schema_input_type=SourceSection | _Sources),
    ] = Field(
        min_length=1,
        description="A file, a folder, a hub id, or a list of {path, format, columns, weight, max_rows, ...}.",
    )
    validation: Annotated[float, Field(ge=0, lt=1)] | PathText | None = Field(
        default=0.05,
        description="A fraction of the training rows, chosen by their content so that it is stable when rows are "
        "added or shuffled, or a file. null or 0: none.",
    )
    group_by: str | None = Field(
        default=None,
        min_length=1,
        description="A column whose equal values stay on one side of the validation split, such as a customer's id.",
    )
    evaluation: tuple[PathText, ...] = Field(
        default=(),
        description="Files that the model will be judged on later. Nothing is learnt from them: training rows are "
        "compared with them, and rows that stand in both are reported as leaks.",
    )
    replay: ReplaySection | None = Field(
        default=None, description="General data mixed in against forgetting: {path, share}."
    )
    format: DataFormat = Field(default="auto", description="How rows are laid out. auto: recognised from their keys.")
    columns: dict[str, str] | None = Field(
        default=None,
        description="Where a format's keys come from: {prompt: question, completion: answer}, or small Jinja "
        'templates, {prompt: "{{ title }}: {{ question }}"}.',
    )
    max_length: int = Field(default=1024, ge=2, description="Longest example in tokens.")
    overflow: Literal["error", "drop", "truncate"] = Field(
        default="error", description="What happens to a longer example. drop and truncate are counted in the report."
    )
    train_on: Literal["assistant", "last", "all"] = Field(
        default="assistant", description="Which tokens count: every assistant turn, the last one, or all tokens."
    )
    allow_control_tokens: bool = Field(
        default=False,
        description="Accept rows whose text spells a control token such as <|im_end|>. It then is that token, in "
        "training as in serving.",
    )
    dedup: Literal["off", "exact", "near"] = Field(
        default="off",
        description="Which duplicates are left out of training, and counted: rows equal to an earlier or a held-back "
        "row, or also those nearly equal. off: none; they are reported all the same.",
    )
    near_duplicates: Literal["auto"] | bool = Field(
        default="auto",
        description="Search for nearly equal rows (MinHash). auto: up to 100,000 rows, where it takes seconds.",
    )
    packing: Literal["auto"] | bool = Field(
        default="auto",
        description="Several examples of one optimizer step in one sequence, without padding. Changes speed and "
        "memory, not the result. auto: where they are proven not to see each other, for this method and model.",
    )
    streaming: bool = Field(
        default=False,
        description="Tokenise rows as training needs them and keep none on disk; needs train.max_steps.",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto",
        description="Processes that tokenise. 0: none besides this one. auto: by cores and amount of data.",
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("evaluation"), (str, list, Path)):
            return {**value, "evaluation": tuple(_sources(value["evaluation"]))}
        return value


class TrainSection(Section):
    """How to optimise. Every number that changes the result is written out in RUN/recipe.yaml."""

    objective: Literal["sft"] = Field(default="sft", description="Supervised fine-tuning.")
    learning_rate: float | None = Field(
        default=None, gt=0, description="Peak learning rate of AdamW. null: the method's own default."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="Course of the learning rate after the warm-up; linear and cosine end at zero."
    )
    warmup: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps in which the rate rises to its peak."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay of the matrices.")
    max_grad_norm: float = Field(default=1.0, ge=0, description="Gradients are scaled down to this norm; 0: never.")
    epochs: float = Field(default=3, gt=0, description="Passes over the training rows.")
    max_steps: int | None = Field(default=None, ge=1, description="Caps epochs, in optimizer steps.")
    batch_size: int = Field(
        default=16, ge=1, description="Examples in one optimizer step, whatever the devices and the memory."
    )
    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Examples in one forward pass; changes speed and memory, not the result."
    )
    engine: Literal["auto", "plain"] = Field(default="auto", description="plain: the model's own forward pass.")
    gradient_checkpointing: bool = Field(default=False, description="Less memory for about a third more time.")
    checkpoint_every: int = Field(default=100, ge=1, description="Optimizer steps between checkpoints.")
    keep_last: int = Field(default=2, ge=1, description="Newest checkpoints kept on disk.")
    keep_best: int = Field(default=0, ge=0, description="Checkpoints of the lowest validation losses kept besides.")
    validate_every: int = Field(default=100, ge=1, description="Steps between validations; always before and after.")
    log_every: int = Field(default=1, ge=1, description="Steps between lines of metrics.jsonl.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of everything drawn at random.")

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> TrainSection:
        if isinstance(self.micro_batch_size, int) and self.batch_size % self.micro_batch_size:
            raise ClashError(
                f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}",
                ("micro_batch_size",),
                ("batch_size",),
            )
        return self


class ExportSection(Section):
    """One artefact to write and verify after training."""

    OBVIOUS_KEY: ClassVar[str | None] = "kind"

    kind: ExportKind = Field(
        description="adapter: the adapter alone, for PEFT; merged: a model of its own; nf4: that in 4 bit, for "
        "transformers with bitsandbytes; gguf: that as one GGUF file; gguf-adapter: LoRA for llama.cpp; onnx: for "
        "onnxruntime-genai."
    )
    dtype: str = Field(
        default="auto",
        description="Of the stored weights; which there are depends on the kind. auto: of merged weights the base "
        "checkpoint's own, of gguf float16, of onnx float32.",
    )

    @model_validator(mode="after")
    def _the_kind_has_the_dtype(self) -> ExportSection:
        known = EXPORT_DTYPES[self.kind]
        if self.dtype not in known:
            raise ClashError(f"{self.dtype!r} is no dtype of {self.kind}; it has {', '.join(known)}", ("dtype",))
        return self
