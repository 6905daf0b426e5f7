"""A trained model with all that an export records about it, and what a target says of what it wrote."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ftkit.export.probes import Probes
from ftkit.methods import Method
from ftkit.models.find import BaseModel


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with all that an export records about it.

    Attributes:
        model: Live, in float32 arithmetic.
        method: That trained it.
        base: What it was trained from.
        tokenizer: With the chat template that was trained with.
        added_tokens: Ids added to the base's vocabulary, with what they were cut into before.
        stop_token_ids: Tokens that end an answer.
        probes: Measured on the base and on the live model.
        quantization: Plain arguments of the base's BitsAndBytesConfig, or None.
        origin: Fields of the manifest that the run knows: recipe, method, recipe_digest, data_digest.
        facts: For the model card.
        prefix_ids: Tokens that the export's tokenizer puts in front of every text, where the live model has learned
            positions; the probes' own ids are without them.
        notes: What the manifest is to record beside, whatever the target.
    """

    model: nn.Module
    method: Method
    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    added_tokens: dict[int, tuple[int, ...]]
    stop_token_ids: list[int]
    probes: Probes
    quantization: dict[str, Any] | None
    origin: dict[str, Any]
    facts: dict[str, Any]
    prefix_ids: list[int] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a target wrote.

    Attributes:
        dtype: Of the stored weights; a key of `ftkit.export.limits.LIMITS`.
        notes: What else the manifest is to record, such as how a merge was chosen.
    """

    dtype: str
    notes: dict[str, Any] = field(default_factory=dict)


def generation_config(trained: Trained) -> GenerationConfig:
    """The base's own settings, with every token that was trained to end an answer among the stops."""
    inner: Any = trained.model
    while hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    config = copy.deepcopy(getattr(inner, "generation_config", None)) or GenerationConfig()
    own = config.eos_token_id
    known = [own] if isinstance(own, int) else list(own or [])
    stops = trained.stop_token_ids + [token for token in known if token not in trained.stop_token_ids]
    config.eos_token_id = stops[0] if len(stops) == 1 else stops
    if trained.prefix_ids:
        # Their rows keep them from being sampled in every engine; this says so to those that read it.
        config.suppress_tokens = sorted({*(config.suppress_tokens or []), *trained.prefix_ids})
    if config.pad_token_id is None:
        config.pad_token_id = stops[0]
    if not config.do_sample:
        # Some checkpoints carry these without asking for sampling; transformers loads that but will not write it.
        for key in ("temperature", "top_p", "top_k", "min_p", "typical_p"):
            setattr(config, key, None)
    return config
