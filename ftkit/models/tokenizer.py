"""Tokenizers and their chat templates, so that training renders exactly what serving will."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from ftkit.errors import DataError, ModelError, RecipeError
from ftkit.files import sha256_json
from ftkit.models.chat_template import (
    Variable,
    control_tokens,
    each_text,
    not_jinja,
    set_defaults,
    split_defaults,
)
from ftkit.template_limits import LimitedEnvironment

# transformers takes no environment from outside, and its own lets a template fill the memory or run for years.
chat_template_utils.ImmutableSandboxedEnvironment = LimitedEnvironment

TEMPLATES_FOLDER = Path(__file__).with_name("templates")
MAX_TEMPLATE_BYTES = 1 << 20
PROBE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def template_names() -> list[str]:
    """Names of the shipped chat templates."""
    return sorted(path.stem for path in TEMPLATES_FOLDER.glob("*.jinja"))


def load_tokenizer(
    folder: Path,
    chat_template: str | None = None,
    *,
    chat_template_kwargs: Mapping[str, Variable] | None = None,
    added_tokens: Literal["auto"] | Sequence[str] = "auto",
) -> PreTrainedTokenizerBase:
    """Load a tokenizer without network or foreign code, with the template and the tokens that a recipe asks for.

    Args:
        folder: A model folder.
        chat_template: Name of a shipped template or a Jinja file, for tokenizers that have none.
        chat_template_kwargs: Values of the template's variables, written into its text.
        added_tokens: Tokens to add where the vocabulary lacks them, after those that ``chat_template`` writes;
            ``auto`` for only those, an empty list for none at all.

    Raises:
        ModelError: No usable tokenizer, or one without character offsets (masks need them), or one that has no
            room for tokens of its own.
        RecipeError: ``chat_template`` is not to be had, or ``chat_template_kwargs`` are not its variables.
        DataError: The template needs tokens that this tokenizer lacks.
    """
    tokenizer = read_tokenizer(folder)
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if chat_template_kwargs:
        if tokenizer.chat_template is None:
            raise RecipeError(
                "model.chat_template_kwargs: this tokenizer has no chat template to read them",
                fix=f"Choose one with model.chat_template: {', '.join(template_names())}, or a Jinja file.",
            )
        tokenizer.chat_template = set_defaults(tokenizer.chat_template, chat_template_kwargs)
    if added_tokens:
        own = control_tokens(tokenizer.chat_template) if chat_template is not None else []
        add_missing(tokenizer, [*own, *([] if added_tokens == "auto" else added_tokens)], folder)
    if tokenizer.chat_template is not None:
        _require_template_tokens(tokenizer)
        _begin_with_bos(tokenizer)
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer just as it is on disk.

    Raises:
        ModelError: No usable tokenizer, or one without character offsets (masks need them).
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
    return tokenizer


def wants_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts the beginning-of-sequence token in front of a text."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def text_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts in front of a text: the tokens of a soft prompt, then BOS, or neither."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return list(whole[: next(starts, 0)])


def is_one_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether the tokenizer knows a text as one token of its own."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return len(ids) == 1 and (ids[0] != tokenizer.unk_token_id or text == tokenizer.unk_token)


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
        # A pipe would be waited for, and a device has no end.
        if path.is_file() and path.stat().st_size <= MAX_TEMPLATE_BYTES:
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    raise RecipeError(
        f"model.chat_template: {name!r} is neither a shipped template nor a readable file",
        fix=f"Shipped: {', '.join(template_names())}.",
    )


def add_missing(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], folder: Path) -> None:
    """Give every listed text that is not one token yet an id of its own, in the order of the list."""
    missing = [token for token in dict.fromkeys(tokens) if not is_one_token(tokenizer, token)]
    if not missing:
        return
    owners = {id_: token for token, id_ in tokenizer.get_vocab().items()}
    # normalized=False: where a normaliser lowercases, what a person types must not become a control token.
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    for token in missing:
        # The library counts entries to find the next id, and so hits a taken one where a vocabulary has gaps.
        id_ = tokenizer.convert_tokens_to_ids(token)
        if owners.get(id_, token) != token:
            raise ModelError(
                f"{folder}: {token} cannot be added: the vocabulary has gaps, and its id {id_} is {owners[id_]!r}",
                fix="Choose a template that needs no tokens of its own, such as model.chat_template: plain.",
            )


def _require_template_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """A control token that the vocabulary lacks would be cut into pieces, and the model could not stop on it."""
    try:
        text = str(tokenizer.apply_chat_template(PROBE, tokenize=False))
    except TemplateSyntaxError as error:
        raise not_jinja(error) from None
    except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind becomes one message
        raise DataError(f"the chat template cannot render one user and one assistant turn: {error}") from None
    for control in ("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|end|>"):
        if control in text and not is_one_token(tokenizer, control):
            raise DataError(
                f"the chat template uses {control}, which is not one token of this tokenizer",
                fix=f"Choose another template ({', '.join(template_names())}), name the token in "
                "model.added_tokens, or take a base model that has it.",
            )


def _begin_with_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the template write BOS where the tokenizer wants it and the template forgets it.

    Servers tokenise a rendered chat without adding special tokens, so only the template can put BOS there; a model
    such as Gemma loses more than 2 nats a token without it. The mended template is the one that is exported.
    """
    if not wants_bos(tokenizer):
        return

    def mended(text: str) -> str:
        try:
            chat = tokenizer.apply_chat_template(PROBE, tokenize=False, chat_template=text)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
            return text  # not the default one, which has rendered this, but one for other chats, say with tools
        defaults, rest = split_defaults(text)
        return text if str(chat).startswith(str(tokenizer.bos_token)) else defaults + "{{ bos_token }}" + rest

    tokenizer.chat_template = each_text(tokenizer.chat_template, mended)
