"""One sequence to train on, as lists of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sequence to train on.

    Attributes:
        input_ids: Token ids.
        labels: The same ids where a token counts towards the loss, -100 elsewhere; ``labels[0]`` is always -100, as
            nothing comes before the first token to predict it from.
        answer_start: Where the last answer begins; the ids before it are the prompt that a server would send.
        stop_id: The token that ends the last answer.
        answer: Text of the last answer; None for plain text.
        place: File and line of the row.
        question: Text of the turn before the last answer; None for plain text.
    """

    input_ids: list[int]
    labels: list[int]
    answer_start: int
    stop_id: int
    answer: str | None
    place: str
    question: str | None = None

    def cut(self, max_length: int) -> TokenizedExample:
        """The beginning of it."""
        return replace(
            self,
            input_ids=self.input_ids[:max_length],
            labels=self.labels[:max_length],
            answer_start=min(self.answer_start, max_length),
        )

    @property
    def supervised_tokens(self) -> int:
        """How many tokens count towards the loss."""
        return sum(label != IGNORED for label in self.labels)


def lengths_of(examples: Sequence[TokenizedExample]) -> list[int]:
    """Tokens of each example; of those that lie on disk (`ftkit.data.stored`) without reading them."""
    known = getattr(examples, "lengths", None)
    return [len(example.input_ids) for example in examples] if known is None else [int(length) for length in known]
