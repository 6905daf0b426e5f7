"""Generated answers to held-back questions, scored."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from ftkit.data.example import TokenizedExample
from ftkit.evaluate.generation import generate
from ftkit.evaluate.metrics import score
from ftkit.train.progress import ProgressBar

# An answer that goes on beyond its reference cannot equal it any more; a few tokens more show how it goes on.
TOKENS_BEYOND_REFERENCE = 8


@dataclass(frozen=True, kw_only=True)
class AnswerSet:
    """Questions with known answers that a model is asked before and after training.

    Attributes:
        prompts: Token ids, as a server would send them.
        questions: Their last turn as text.
        references: The known answers.
        max_new_tokens: Longest answer that can still count.
    """

    prompts: list[list[int]]
    questions: list[str]
    references: list[str]
    max_new_tokens: int


def choose_questions(
    examples: Sequence[TokenizedExample], *, at_most: int, max_new_tokens: int, metrics: Sequence[str]
) -> AnswerSet:
    """The first examples that have an answer (plain text has none).

    Args:
        examples: Held back from training.
        at_most: How many to take.
        max_new_tokens: The recipe's bound.
        metrics: Where exact match is all that is asked, answers are cut soon after the longest reference.
    """
    with_answer = (
        example
        for example in examples
        if example.answer is not None and 0 < example.answer_start < len(example.input_ids)
    )
    chosen = list(itertools.islice(with_answer, at_most))
    longest = max((len(example.input_ids) - example.answer_start for example in chosen), default=0)
    if set(metrics) <= {"exact_match"}:
        max_new_tokens = min(max_new_tokens, longest + TOKENS_BEYOND_REFERENCE)
    return AnswerSet(
        prompts=[example.input_ids[: example.answer_start] for example in chosen],
        questions=[example.question or "" for example in chosen],
        references=[(example.answer or "").strip() for example in chosen],
        max_new_tokens=max_new_tokens,
    )


def answer_questions(
    model: nn.Module,
    questions: AnswerSet,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stop_token_ids: Sequence[int],
    metrics: Sequence[str],
    title: str,
    pads_prompts: bool = True,
) -> dict[str, Any]:
    """Ask, and score the answers.

    Returns:
        ``metrics`` {name: mean} and ``answers`` [text].
    """
    if not questions.prompts:
        return {"metrics": {}, "answers": []}
    with ProgressBar(title, len(questions.prompts)) as bar:
        answers = generate(
            model,
            questions.prompts,
            tokenizer,
            stop_token_ids=stop_token_ids,
            max_new_tokens=questions.max_new_tokens,
            pads_prompts=pads_prompts,
            progress=bar,
        )
    texts = [answer.text for answer in answers]
    # An answer that never ends its turn is not the reference, even where its first words are.
    ended = [answer.text if answer.finish_reason == "stop" else f"{answer.text} …" for answer in answers]
    return {"metrics": score(ended, questions.references, metrics), "answers": texts}
