"""Rows that teach a generator to read: the passage with the answer among others, in any order, and sometimes not.

Source:
    RAFT (Zhang et al. 2024, arXiv:2403.10131).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ftkit.rag.mining import Mined
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.reader import REFUSAL, ReaderPrompts


def reader_rows(
    mined: Sequence[Mined], prompts: ReaderPrompts, *, passages: int, without_gold: float, seed: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One conversation for each question that can teach something.

    Args:
        mined: Questions with their passages.
        prompts: Of the generator.
        passages: How many it is given.
        without_gold: Share of the answerable questions whose passages lack the answer; the answer is then a refusal.
        seed: Of what is left out and of the order.

    Returns:
        Rows with ``messages``, and how many questions became what: with_gold, without_gold, unanswerable, and why
        others were left out. These add up to the questions.
    """
    rows, counts = [], Counter[str]()
    for one in mined:
        draw = draws_of(one.asked, seed)
        kind, shown = _shown(one, passages, draw, without_gold)
        counts[kind] += 1
        if shown is None:
            continue
        draw.shuffle(shown)
        answer = one.asked.answers[0] if kind == "with_gold" else REFUSAL
        messages = [
            {"role": "user", "content": prompts.text(one.asked.question, shown)},
            {"role": "assistant", "content": answer},
        ]
        rows.append({"messages": messages})
    return rows, dict(counts)


def refusals(mined: Sequence[Mined], *, without_gold: float, seed: int) -> list[tuple[AskedQuestion, str]]:
    """What a reader must go on refusing while it is trained on right passages: else it unlearns to.

    Args:
        mined: Questions with their passages.
        without_gold: Share of the answerable questions that come with a passage that lacks the answer.
        seed: Of which these are.

    Returns:
        Every unanswerable question with the best passage that was found, and those with the best wrong one.
    """
    found = []
    for one in mined:
        if not one.asked.answers:
            found += [(one.asked, passage.content) for passage in one.found[:1]]
        elif draws_of(one.asked, seed).random() < without_gold:
            found += [(one.asked, passage.content) for passage in one.negatives[:1]]
    return found


def draws_of(asked: AskedQuestion, seed: int) -> random.Random:
    """What is drawn for one question: first whether its passages lack the answer, then their order."""
    return random.Random(_number(seed, asked.id))


def _shown(one: Mined, passages: int, draw: random.Random, without_gold: float) -> tuple[str, list[str] | None]:
    gold = list(dict.fromkeys(passage.content for passage in one.gold))
    others = [text for text in dict.fromkeys(passage.content for passage in one.negatives) if text not in gold]
    if not one.asked.answers:
        found = list(dict.fromkeys(passage.content for passage in one.found))
        return "unanswerable", found[:passages]
    if not gold:
        return "no passage holds the answer", None
    if len(gold) > passages:
        return "needs more passages than the reader is given", None
    # Drawn before anything else, so that the share does not depend on what was found.
    if draw.random() < without_gold and others:
        return "without_gold", others[:passages]
    return "with_gold", gold + others[: passages - len(gold)]


def _number(seed: int, name: str) -> int:
    # Not hash(): it differs from process to process.
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
