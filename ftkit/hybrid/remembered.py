"""Texts and answered questions as what a datastore remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.errors import DataError
from ftkit.files import sha256_json
from ftkit.models.tokenizer import text_prefix
from ftkit.pipeline.target import Target
from ftkit.rag.likelihood import answer_example
from ftkit.rag.passage import content_sha256
from ftkit.rag.reader import ReaderPrompts

WINDOW = 512  # tokens of a text that are read at once


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Attributes: question: Asked. answer: Whose tokens are remembered. passages: Shown with the question."""

    question: str
    answer: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What remembered tokens come from, by digests: enough to know them again, and to forget them.

    Attributes:
        sha256: Of a text, or of a question with its answer.
        is_answer: Which of the two.
        rests_on: Of the passages that were shown with a question.
    """

    sha256: str
    is_answer: bool = False
    rests_on: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Digests of the texts without which it would not be."""
        return self.rests_on if self.is_answer else (self.sha256,)

    def is_any_of(self, gone: Set[str]) -> bool:
        """Whether it is among these texts, or rests on one of them."""
        return self.sha256 in gone or not gone.isdisjoint(self.rests_on)


def source_of(text: str | Pair) -> Source:
    """Of a text or an answered question."""
    if isinstance(text, Pair):
        named = sha256_json([text.question, text.answer])
        return Source(sha256=named, is_answer=True, rests_on=tuple(map(text_digest, text.passages)))
    return Source(sha256=text_digest(text))


def text_digest(text: str) -> str:
    """Hex; a passage's is the one that its index knows it by."""
    return content_sha256(text).hex()


def examples_of(target: Target, texts: Iterable[str | Pair]) -> Iterator[tuple[Source, TokenizedExample]]:
    """Texts as a model is to read them, those longer than it reads at once in windows, each with where it is from.

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
            yield source_of(text), example
            continue
        source = source_of(text)
        tokens = [*prefix, *target.tokenizer(prompts.harmless(text), add_special_tokens=False)["input_ids"]]
        # Each window begins with the last token of the one before, so every token but the very first is predicted.
        for start in range(0, len(tokens) - 1, window - 1):
            yield source, _window(target, tokens[start : start + window], place)


def _window(target: Target, tokens: Sequence[int], place: str) -> TokenizedExample:
    return TokenizedExample(
        input_ids=list(tokens),
        labels=[IGNORED, *tokens[1:]],
        answer_start=1,
        stop_id=target.stop_token_ids[0],
        answer=None,
        place=place,
    )
