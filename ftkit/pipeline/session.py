"""What a recipe needs, found and prepared: base, tokenizer, data, method, precision."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ftkit.data.prepare import PreparedData, prepare
from ftkit.data.settings import encoder_settings
from ftkit.data.streaming import prepare_stream
from ftkit.methods import Method, method_of
from ftkit.models.find import BaseModel, find_base
from ftkit.models.load import load_model
from ftkit.models.precision import Precision, choose_precision, default_device
from ftkit.models.tokenizer import load_tokenizer, template_names
from ftkit.models.vocabulary import added_token_pieces, extend_vocabulary
from ftkit.models.weights import checkpoint_dtype
from ftkit.recipe import Recipe
from ftkit.train.progress import ProgressBar


@dataclass(frozen=True, kw_only=True)
class Session:
    """A recipe with everything that it names, before any weight is in memory.

    Attributes:
        recipe: Resolved.
        method: That the recipe asks for.
        base: On this machine, checked.
        tokenizer: With the chat template that training and serving use.
        added_tokens: Ids that the recipe adds to the base's vocabulary (see `added_token_pieces`).
        device: Where training runs.
        precision: Of weights and arithmetic.
        today: What chat templates are told that write the date; a resumed run keeps that of its first day.
    """

    recipe: Recipe
    method: Method
    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    added_tokens: dict[int, tuple[int, ...]]
    device: torch.device
    precision: Precision
    today: datetime.date

    @property
    def quantization_config(self) -> Any:
        """How the base is quantised while it is loaded; None for not at all."""
        return self.method.quantization(self.precision.compute)

    def load_base(self) -> nn.Module:
        """The base in memory, as the method wants it."""
        model = load_model(
            self.base.folder,
            dtype=self.precision.weights,
            device=self.device,
            quantization_config=self.quantization_config,
        )
        extend_vocabulary(model, self.added_tokens)
        return self.method.prepare(model)

    def attach(self, model: nn.Module) -> nn.Module:
        """The method on the base, its initial weights drawn from the recipe's seed."""
        # Seed before attach: LoRA's A matrix is drawn here, not in the trainer.
        torch.manual_seed(self.recipe.train.seed)
        return self.method.attach(model)

    def start(self, model: nn.Module, data: PreparedData) -> None:
        """What the method does once before its first step, where it does anything."""
        if self.method.has_own_start:
            self.method.start(model, [example.input_ids for example in data.train], self.original)

    def original(self) -> nn.Module:
        """The base in memory once more, in full precision."""
        model = load_model(self.base.folder, dtype=torch.float32, device=torch.device("cpu"))
        extend_vocabulary(model, self.added_tokens)
        return model

    def prepare_data(self) -> PreparedData:
        """Read, check, split and tokenise the recipe's data."""
        data = self.recipe.data
        encoder = encoder_settings(
            self.tokenizer,
            train_on=data.train_on,
            allow_control_tokens=data.allow_control_tokens,
            today=self.today,
            known_templates=template_names(),
        )
        with ProgressBar("preparing data, MiB", 1) as bar:
            train = self.recipe.train

            def show(done: int, total: int) -> None:
                bar(done >> 20, max(1, total >> 20))

            if not data.streaming:
                return prepare(data, encoder, seed=train.seed, progress=show)
            assert train.max_steps is not None, "the recipe refuses streams without an end"
            length = train.max_steps * train.batch_size
            return prepare_stream(data, encoder, length=length, seed=train.seed, progress=show)


def open_session(recipe: Recipe, *, today: datetime.date | None = None) -> Session:
    """Find what a recipe names, fetching what it may.

    Args:
        recipe: The recipe.
        today: See `Session`; None for the date of the clock.

    Raises:
        MissingPartError: The method needs a package that is not installed.
        ModelError: The base model cannot be had or used.
        DataError: The chat template does not fit the tokenizer.
        RecipeError: The method has no place for added tokens, or a text in its settings does not fit the tokenizer.
    """
    recipe = recipe.resolved()
    method = method_of(recipe)
    base = find_base(recipe.model.path, recipe.model.revision)
    tokenizer = load_tokenizer(
        base.folder,
        recipe.model.chat_template,
        chat_template_kwargs=recipe.model.chat_template_kwargs,
        added_tokens=recipe.model.added_tokens,
    )
    added = added_token_pieces(base.folder, tokenizer)
    method.bind(tokenizer, tuple(added))
    device = default_device()
    precision = choose_precision(
        recipe.model.dtype,
        checkpoint=checkpoint_dtype(base.folder),
        device=device,
        master_weights=method.trains_base_weights or method.needs_float32_base,
    )
    return Session(
        recipe=recipe,
        method=method,
        base=base,
        tokenizer=tokenizer,
        added_tokens=added,
        device=device,
        precision=precision,
        today=today or datetime.date.today(),
    )
