"""A block of rows comes to what its rows come to one by one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ftkit.data.arrays import TokenArrays
from ftkit.data.words import WordEncoder
from tests.data.preparing import chat
from tests.data.storing import arrays_of

WORDS = [
    "it's", "We'll", "12345", "naïve", "中文", "—", "e\u0301", "...", "x=1", "\n\n", "\t", "  ", "<b>", "word", "🙂",
    "The", "\r\n", "'", "$5.00",
]  # fmt: skip
SPELLS = "a <|im_start|> of my own"


def said(draw: random.Random) -> str:
    return "so " + " ".join(draw.choices(WORDS, k=draw.randrange(30)))


def rows_of(form: str, draw: random.Random) -> list[dict[str, Any]]:
    """Good rows, and some with a fault of every kind among them."""
    if form == "messages":
        good = [chat(*(said(draw) for _ in range(2 * draw.randrange(1, 4)))) for _ in range(20)]
        bad = [{"messages": []}, chat("hi", SPELLS), {}, chat(SPELLS, "yo"), chat("only asked")]
    elif form == "text":
        good = [{"text": said(draw)} for _ in range(20)]
        bad = [{"text": SPELLS}, {"text": 7}, {"text": ""}]
    elif form == "prompt-completion":
        good = [{"prompt": said(draw), "completion": said(draw)} for _ in range(20)]
        bad = [{"prompt": said(draw)}, {"prompt": SPELLS, "completion": "yo"}]
    else:
        good = [{"prompt": said(draw), "chosen": said(draw), "rejected": said(draw)} for _ in range(20)]
        bad = [{"prompt": "hi", "chosen": "yo", "rejected": SPELLS}, {"prompt": "hi", "chosen": "", "rejected": ""}]
    rows = good + bad + [good[0]]
    draw.shuffle(rows)
    return rows


def sequences(arrays: TokenArrays) -> list[tuple[Any, ...]]:
    """Ids, spans and the rest of each sequence."""
    found = []
    for one in arrays.arrays["sequences"]:
        ids = arrays.arrays["ids"][one["ids_start"] :][: one["length"]].tolist()
        spans = arrays.arrays["spans"][one["spans_start"] :][: one["spans"]].tolist()
        found.append((ids, spans, *(int(one[name]) for name in ("answer_start", "stop_id", "supervised", "turn"))))
    return found


@pytest.mark.parametrize("form", ["messages", "text", "prompt-completion", "preference"])
def test_a_block_of_rows_comes_to_what_its_rows_come_to_one_by_one(form: str, monkeypatch: pytest.MonkeyPatch):
    rows = rows_of(form, random.Random(form))
    alone = [arrays_of([row], first_number=number, form=form) for number, row in enumerate(rows, 1)]
    apart = arrays_of(rows, form=form)  # too little text to be worth it
    together: list[int] = []
    original = WordEncoder._together
    monkeypatch.setattr("ftkit.data.words._WORTH", 1)
    monkeypatch.setattr(WordEncoder, "_together", lambda self, texts: together.append(1) or original(self, texts))

    block = arrays_of(rows, form=form)

    assert together == [1]
    assert block.to_bytes() == apart.to_bytes()
    assert sequences(block) == [one for arrays in alone for one in sequences(arrays)]
    assert [vars(one) for one in block.problems] == [vars(one) for arrays in alone for one in arrays.problems]
    assert block.findings == [one for arrays in alone for one in arrays.findings]
    assert len(block.problems) >= 2
    assert len(block.arrays["rows"]) == len(rows) - len(block.problems) >= 21
