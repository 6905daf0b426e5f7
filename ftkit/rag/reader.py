"""What the generator is shown: passages, the question, and how to say that they do not hold the answer.

One wording for training and for serving, because a reader answers best to exactly what it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.errors import DataError
from ftkit.evaluate.generation import prompt_ids
from ftkit.evaluate.metrics import squad_words
from ftkit.models.tokenizer import text_prefix

REFUSAL = "I don't know."
INSTRUCTION = f"Answer the question from the passages. If they do not hold the answer, say: {REFUSAL}"
ALONE = f"Answer the question. If you are not sure, say: {REFUSAL}"


@dataclass(frozen=True, kw_only=True)
class ReaderPrompt:
    """A prompt and what went into it.

    Attributes:
        text: The user's turn.
        ids: Token ids, ending where the answer begins.
        given: How many of the passages, from the best, are in it.
    """

    text: str
    ids: list[int]
    given: int


class ReaderPrompts:
    """Builds prompts for one generator.

    Args:
        tokenizer: Of the generator, with its chat template.
        room: Tokens that a prompt may have; None for any number.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, room: int | None) -> None:
        self._tokenizer, self._room = tokenizer, room
        self._prefix = text_prefix(tokenizer)

    def prompt(self, question: str, passages: Sequence[str]) -> ReaderPrompt:
        """Show as many passages as there is room for, the best ones first.

        Raises:
            DataError: Not even the question alone leaves room for an answer.
        """
        given = len(passages)
        while True:
            text = self.text(question, passages[:given])
            ids = prompt_ids(text, self._tokenizer, in_front=self._prefix)
            if self._room is None or len(ids) <= self._room:
                return ReaderPrompt(text=text, ids=ids, given=given)
            if given == 0:
                raise DataError(
                    f"the question makes a prompt of {len(ids)} tokens; this generator takes {self._room} beside an "
                    "answer",
                    fix="Ask in fewer words, or ask for a shorter answer.",
                )
            given -= 1

    def text(self, question: str, passages: Sequence[str]) -> str:
        """The user's turn with all of these passages."""
        return reader_text(self.harmless(question), [self.harmless(text) for text in passages])

    def harmless(self, text: str) -> str:
        """The text with a space inside whatever spells a control token, so that no document can forge a turn."""
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        added: dict[int, Any] = self._tokenizer.added_tokens_decoder
        spelled = {str(token.content) for token in added.values() if token.special}
        spelled |= {str(token) for token in self._tokenizer.all_special_tokens}
        longest_first = sorted((one for one in spelled if len(one) > 1), key=lambda one: (-len(one), one))
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def reader_text(question: str, passages: Sequence[str]) -> str:
    """The user's turn: numbered passages, the question, what to do."""
    if not passages:
        return f"Question: {question.strip()}\n\n{ALONE}"
    numbered = "\n\n".join(f"[{number}] {text.strip()}" for number, text in enumerate(passages, start=1))
    return f"{numbered}\n\nQuestion: {question.strip()}\n\n{INSTRUCTION}"


def is_refusal(answer: str) -> bool:
    """Whether an answer says that it does not know."""
    refusal = squad_words(REFUSAL)
    return not answer.strip() or squad_words(answer)[: len(refusal)] == refusal
