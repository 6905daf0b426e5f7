"""Preference pairs: a better and a worse answer to one prompt.

``{"prompt": "...", "chosen": "...", "rejected": "..."}`` as texts, or as lists of messages; or two conversations
``{"chosen": [...], "rejected": [...]}`` that are the same up to an answer. Answers before that one are context. A
prompt given as text beside two conversations must be the question that they share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.data.formats.fields import Format, RowFault, text_field
from ftkit.data.formats.messages import read_messages
from ftkit.data.formats.tools import read_tools
from ftkit.data.formats.turns import require_conversation
from ftkit.data.sample import Content, Turn

_SAME = "is the same as chosen, so neither is preferred"


def _read(row: Mapping[str, Any]) -> Content:
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    tools = read_tools(row.get("tools"))
    if isinstance(chosen, list) != isinstance(rejected, list) and None not in (chosen, rejected):
        listed, plain = ("chosen", "rejected") if isinstance(chosen, list) else ("rejected", "chosen")
        raise RowFault(
            plain, f"is no list of messages, and {listed} is one", "Give both as text, or both as lists of messages."
        )
    if not isinstance(chosen, list):
        if isinstance(prompt, list):
            raise RowFault("chosen", "is no list of messages, and prompt is one", "Give all three alike.")
        return _read_texts(row, tools)
    before: tuple[Turn, ...] = ()
    if isinstance(prompt, list):
        before = read_messages(prompt, "prompt", trained=False)
        if _messages(read_messages(chosen, "chosen")[: len(before)]) == _messages(before):
            raise RowFault(
                "chosen", "begins with the prompt once more", "Remove the column prompt, or that part of both lists."
            )
    pair = _part(_Side.read("chosen", chosen, before), _Side.read("rejected", rejected, before))
    question = text_field(row, "prompt", required=False) if not before else ""
    if question and all(turn.content != question for turn in pair.turns if turn.role == "user"):
        raise RowFault("prompt", "is text that no user's turn says", "Remove the column, or mend the row.")
    return dataclasses.replace(pair, tools=tools)


def _read_texts(row: Mapping[str, Any], tools: tuple[Mapping[str, Any], ...]) -> Content:
    question = Turn(role="user", content=text_field(row, "prompt"))
    better, worse = (Turn(role="assistant", content=text_field(row, key)) for key in ("chosen", "rejected"))
    if better == worse:
        raise RowFault("rejected", _SAME, "Remove the row.")
    return Content(turns=(question, better), rejected=(question, worse), tools=tools)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One whole conversation: its turns as answers of their own, and as context of a later one."""

    field: str
    turns: tuple[Turn, ...]
    context: tuple[Turn, ...]

    @classmethod
    def read(cls, field: str, messages: Any, before: tuple[Turn, ...]) -> _Side:
        side = cls(
            field=field,
            turns=before + read_messages(messages, field),
            context=before + read_messages(messages, field, trained=False),
        )
        require_conversation(side.turns, field, first="prompt[0]" if before else "")
        return side


def _part(better: _Side, worse: _Side) -> Content:
    """The pair, which must be the same up to an answer of the assistant."""
    said, other = _messages(better.turns), _messages(worse.turns)
    if said == other:
        raise RowFault("rejected", _SAME, "Remove the row.")
    shared = next(
        (at for at, (one, two) in enumerate(zip(said, other, strict=False)) if one != two), min(len(said), len(other))
    )
    for side in (better, worse):
        if shared == len(side.turns):
            raise RowFault(
                side.field, "is only the beginning of the other conversation", "Give both an answer of their own."
            )
        if side.turns[shared].role != "assistant":
            raise RowFault(
                side.field,
                f"differs from the other conversation in turn {shared + 1}, which is not the assistant's",
                "Both must be the same up to an answer of the assistant.",
            )
        if side.turns[-1].role != "assistant":
            raise RowFault(side.field, "does not end with the assistant's answer", "End with it, or remove the row.")
    chosen, rejected = (side.context[:shared] + side.turns[shared:] for side in (better, worse))
    require_conversation(chosen, better.field)
    return Content(turns=chosen, rejected=rejected)


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, Any]]:
    return [turn.message for turn in turns]


FORMAT = Format(keys=("chosen", "rejected"), optional=("prompt", "tools"), kind="exchange", read=_read)
