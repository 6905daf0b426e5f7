"""What every kind of conversation has in common: which turns count, and what makes it one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftkit.data.formats.fields import RowFault
from ftkit.data.sample import Turn

MARKS = ("train", "weight")


def read_mark(entry: Mapping[str, Any], place: str, role: str, *, default: bool = True) -> bool:
    """Whether a turn is one to learn from: ``train`` (true, false), or ``weight`` (1, 0) as OpenAI writes it.

    Args:
        entry: The turn as the row has it.
        place: Its field.
        role: Its role; only an assistant's turn can be marked as one to learn.
        default: What an assistant's turn without a mark is.

    Raises:
        RowFault: A mark has another value, the two contradict each other, or it cannot be honoured.
    """
    train, weight = entry.get("train"), entry.get("weight")
    if train is None and weight is None:
        return default or role != "assistant"
    if train is not None and not isinstance(train, bool):
        raise RowFault(f"{place}.train", f"{train!r} is not true or false")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowFault(
            f"{place}.weight",
            f"{weight!r} is not 0 or 1",
            "0 is context only, 1 counts. To see rows more often, give their file a weight under data.train.",
        )
    wanted = bool(weight) if train is None else train
    if weight is not None and wanted != bool(weight):
        raise RowFault(
            f"{place}.weight", f"{weight!r} contradicts train: {str(train).lower()}", "Keep one of the two."
        )
    if role != "assistant":
        if wanted:
            mark = "weight" if train is None else "train"
            raise RowFault(
                f"{place}.{mark}",
                f"a turn of the role {role} cannot be trained on",
                "Only the assistant's turns can. data.train_on: all counts every token of every row.",
            )
        return True
    return wanted


def require_conversation(turns: Sequence[Turn], field: str, *, first: str = "") -> None:
    """Refuse what nothing can be learnt from: no answer, none that counts, or an answer to nothing.

    Args:
        turns: The conversation.
        field: Where it stands in the row.
        first: Where its first turn stands, if not in ``field[0]``.

    Raises:
        RowFault: It is so.
    """
    if not any(turn.role == "assistant" for turn in turns):
        raise RowFault(field, "has no assistant turn, so there is no answer to learn", "Add it, or remove the row.")
    if turns[0].role == "assistant":
        raise RowFault(
            first or f"{field}[0]", "a conversation cannot begin with the assistant", "Begin with the user's turn."
        )
    if not any(turn.role == "assistant" and turn.train for turn in turns):
        raise RowFault(
            field,
            "every answer is marked as context only, so there is none to learn",
            "Mark one with train: true (or weight: 1), or remove the row.",
        )
