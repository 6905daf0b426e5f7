"""What an encoder needs to know of a tokenizer that transformers has loaded."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from ftkit.data.encode import EncoderSettings
from ftkit.data.render import TrainOn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encoder_settings(
    tokenizer: PreTrainedTokenizerBase,
    *,
    train_on: TrainOn,
    allow_control_tokens: bool,
    today: datetime.date,
    known_templates: Sequence[str] = (),
) -> EncoderSettings:
    """Collect them.

    Args:
        tokenizer: A fast one, its chat template already in its final form.
        train_on: ``assistant``: every answer. ``last``: the last one. ``all``: every token.
        allow_control_tokens: Whether the text of a row may spell control tokens.
        today: What templates are told that ask for the date.
        known_templates: What a person can choose from where there is none.
    """
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    control_ids = {index for index, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    bos = tokenizer.bos_token_id
    front = _in_front(tokenizer)
    begins_with_bos = bos is not None and front[-1:] == [bos]
    return EncoderSettings(
        tokenizer_json=_json(tokenizer.backend_tokenizer),
        chat_template=tokenizer.chat_template,
        special_tokens={name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        bos_id=bos if begins_with_bos else None,
        prompt_ids=front[:-1] if begins_with_bos else front,
        eos_id=tokenizer.eos_token_id,
        control_ids=sorted(control_ids),
        train_on=train_on,
        allow_control_tokens=allow_control_tokens,
        today=today.isoformat(),
        known_templates=list(known_templates),
    )


def _in_front(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts in front of plain text: BOS, a soft prompt's tokens, or nothing."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return list(whole[: next(starts, 0)])


def _json(raw: Tokenizer) -> str:
    """The serialised tokenizer, without the padding and truncation that the last call of it may have set."""
    if raw.padding is None and raw.truncation is None:
        return str(raw.to_str())
    clean = Tokenizer.from_str(raw.to_str())
    clean.no_padding()
    clean.no_truncation()
    return str(clean.to_str())
