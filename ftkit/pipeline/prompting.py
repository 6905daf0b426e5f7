"""From a conversation or a text to the tokens that a model is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.errors import DataError, UsageError


def chat_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] | None = None,
) -> list[int]:
    """A conversation as token ids, ending where the answer begins. The template alone writes special tokens.

    Args:
        tokenizer: With a chat template.
        messages: As chat templates take them.
        tools: JSON schemas of functions, for templates that show them.

    Raises:
        UsageError: There is no chat template.
        DataError: The template refuses this conversation.
    """
    if tokenizer.chat_template is None:
        raise UsageError("this model has no chat template", fix="Ask for a completion of plain text instead.")
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tools=list(tools) if tools else None, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind is a refusal
        raise DataError(f"the chat template refuses this conversation: {error}") from None
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    """A plain text as token ids; ``special`` with the tokens that the tokenizer itself adds, such as BOS."""
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def context_length(model: Any) -> int | None:
    """Tokens that a prompt and its answer may have together; None where the model's config does not tell.

    Learned positions in front of the text take their part.
    """
    inner = model
    while hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    config = inner.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        return None
    learned = [getattr(one, "num_virtual_tokens", None) or 0 for one in getattr(model, "peft_config", {}).values()]
    return length - max(learned, default=0)
