"""Tokenizers and their chat templates, so that training renders exactly what serving will."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ftkit.errors import DataError, ModelError, RecipeError
from ftkit.files import sha256_json

TEMPLATES_FOLDER = Path(__file__).with_name("templates")


def template_names() -> list[str]:
    """Names of the shipped chat templates."""
    return sorted(path.stem for path in TEMPLATES_FOLDER.glob("*.jinja"))


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer without network or foreign code.

    Args:
        folder: A model folder.
        chat_template: Name of a shipped template or a Jinja file, for tokenizers that have none.

    Raises:
        ModelError: No usable tokenizer, or one without character offsets (masks need them).
        RecipeError: ``chat_template`` is not to be had.
        DataError: The chosen template needs tokens that this tokenizer lacks.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises bare Exception for a damaged file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {first}", fix="Fetch the model again.") from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"{folder}: its tokenizer is a slow one, without the character offsets that loss masks are made from",
            fix="Convert it to tokenizer.json with transformers, or use a checkpoint that has one.",
        )
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if tokenizer.chat_template is not None:
        _require_template_tokens(tokenizer)
        _begin_with_bos(tokenizer)
    return tokenizer


def wants_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts the beginning-of-sequence token in front of a text."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what turns text into ids: the tokenizer's own serialised form, truncation and padding left out."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state.pop("truncation", None)
    state.pop("padding", None)
    return sha256_json(state)


def chat_template_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """SHA-256 of the chat template's text; None where there is none."""
    template: Any = tokenizer.chat_template
    if template is None:
        return None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_template(name: str) -> str:
    shipped = TEMPLATES_FOLDER / f"{name}.jinja"
    path = shipped if name in template_names() else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RecipeError(
            f"model.chat_template: {name!r} is neither a shipped template nor a readable file",
            fix=f"Shipped: {', '.join(template_names())}.",
        ) from None


def _require_template_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """A control token that the vocabulary lacks would be cut into pieces, and the model could not stop on it."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        text = str(tokenizer.apply_chat_template(probe, tokenize=False))
    except TemplateSyntaxError as error:
        raise RecipeError(f"the chat template is not valid Jinja: {error.message} (line {error.lineno})") from None
    except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind becomes one message
        raise DataError(f"the chat template cannot render one user and one assistant turn: {error}") from None
    for control in ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|end|>"):
        if control in text and len(tokenizer(control, add_special_tokens=False)["input_ids"]) != 1:
            raise DataError(
                f"the chat template uses {control}, which is not one token of this tokenizer",
                fix=f"Choose another template ({', '.join(template_names())}), or a base model that has the token.",
            )


def _begin_with_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the template write BOS where the tokenizer wants it and the template forgets it.

    Servers tokenise a rendered chat without adding special tokens, so only the template can put BOS there; a model
    such as Gemma loses more than 2 nats a token without it. The mended template is the one that is exported.
    """
    if not wants_bos(tokenizer):
        return
    rendered = str(tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False))
    if not rendered.startswith(str(tokenizer.bos_token)) and isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
