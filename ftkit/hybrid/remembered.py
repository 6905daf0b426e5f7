"""Texts and answered questions as what a datastore remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.errors import DataError
from ftkit.models.tokenizer import text_prefix
from ftkit.pipeline.target import Target
from ftkit.rag.likelihood import answer_example
from ftkit.rag.reader import ReaderPrompts

WINDOW = 512  # tokens of a text that are read at once


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Attributes: question: Asked. answer: Whose tokens are remembered. passages: Shown with the question."""

    question: str
    answer: str
    passages: tuple[str, ...] = ()


def examples_of(target: Target, texts: Iterable[str | Pair]) -> Iterator[TokenizedExample]:
    """Texts as a model is to read them, those longer than it reads at once in windows.

    Args:
        target: The model.
        texts: Plain ones, of which every token counts, and questions, of whose answers they do.

    Raises:
        DataError: A question and its answer do not fit the model.
    """
    length = target.context_length
    prefix = list(text_prefix(target.tokenizer))
    prompts = ReaderPrompts(target.tokenizer, room=length)
    window = min(WINDOW, length or WINDOW)
    for number, text in enumerate(texts, start=1):
        place = f"text {number}"
        if isinstance(text, Pair):
            ids = prompts.prompt(text.question, text.passages).ids
            example = replace(answer_example(target, ids, text.answer, ended=True), place=place)
            if length is not None and len(example.input_ids) > length:
                what = f"{place}: question and answer have {len(example.input_ids)} tokens; this model takes {length}"
                raise DataError(what, fix="Shorten it, or show fewer passages.")
            yield example
            continue
        tokens = [*prefix, *target.tokenizer(prompts.harmless(text), add_special_tokens=False)["input_ids"]]
        # Each window begins with the last token of the one before, so every token but the very first is predicted.
        for start in range(0, len(tokens) - 1, window - 1):
            yield _window(target, tokens[start : start + window], place)


def _window(target: Target, tokens: Sequence[int], place: str) -> TokenizedExample:
    return TokenizedExample(
        input_ids=list(tokens),
        labels=[IGNORED, *tokens[1:]],
        answer_start=1,
        stop_id=target.stop_token_ids[0],
        answer=None,
        place=place,
    )
