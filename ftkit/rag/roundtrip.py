"""Whether a made question leads back to where it came from: its form, the search, and the reading.

Sources:
    Round-trip consistency: Alberti et al. 2019, arXiv:1906.05416. With the search in it: PAQ, Lewis et al. 2021,
    arXiv:2102.07033.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ftkit.evaluate.generation import generate
from ftkit.evaluate.metrics import f1, squad_words
from ftkit.rag.answering import RagSystem
from ftkit.rag.asking import QuestionPrompts, first_line
from ftkit.rag.blame import FILLERS, comparable
from ftkit.rag.drawing import Drawn
from ftkit.rag.likelihood import answer_log_likelihoods
from ftkit.rag.spans import Span, answer_spans

Check = Literal["extract", "likelihood"]
CHECKS: tuple[Check, ...] = ("extract", "likelihood")
MIN_QUESTION_WORDS = 4
EXTRACT_TOKENS = 24
# Asked in the question's place, so that what is likely in a passage whatever is asked for does not count.
NEUTRAL = "What does the passage say?"
_LEANS = re.compile(
    r"\b(?:passages?|paragraph|excerpt|mentioned here|above|according to (?:this|the)"
    r"|(?:this|the|given|following) (?:text|sentence|article|document|question|answer))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """What a question must pass.

    Attributes:
        found_within: Rank by which the search must find the passage, or one of its document that states the answer.
        check: ``extract``: the generator, given the passage, says the answer. ``likelihood``: given the passage, the
            question makes the answer likelier, and more so than it makes other spans of the passage.
        f1: Least word F1 of what was extracted, without the words of the question; its numbers must be the same.
        margin: Least gain of the likelihood, nats a token, over no passage, over no question, and over other spans.
        rivals: Other spans that the answer is held against at most.
    """

    found_within: int = 10
    check: Check = "extract"
    f1: float = 0.6
    margin: float = 0.25
    rivals: int = 4


def form_fault(question: str, answer: str, passage: str) -> str | None:
    """What is wrong with a question by itself; None where nothing is.

    Args:
        question: As it was made.
        answer: That it must not give away.
        passage: Its content.
    """
    words, told = comparable(question), comparable(answer)
    if not question.endswith(("?", "\uff1f")) or len(words) < MIN_QUESTION_WORDS:
        return "is no question"
    if f" {' '.join(told)} " in f" {' '.join(words)} " or not told:
        return "holds its answer"
    if _LEANS.search(question):
        return "leans on the passage"
    if len(set(squad_words(question)) & set(squad_words(passage))) == 0:
        return "shares no word with its passage"
    return None


def retrieved_at(system: RagSystem, question: str, drawn: Drawn, within: int) -> int | None:
    """The rank, from 1, at which the search finds the passage of a question; None where it does not.

    Args:
        system: Its index and search are used.
        question: No longer than the encoder reads.
        drawn: Where the question came from.
        within: How deep to look.
    """
    for rank, hit in enumerate(system.retrieve(question, within), start=1):
        if hit.passage.content == drawn.passage.content:
            return rank
    return None


def read_back(
    system: RagSystem, prompts: QuestionPrompts, asked: Sequence[tuple[str, Drawn]], trip: RoundTrip
) -> list[tuple[bool, dict[str, Any]]]:
    """Whether the generator, given the passage, comes from each question to its answer, and the figures of it.

    Args:
        system: Its generator reads.
        prompts: Of the generator.
        asked: Questions, each with where it came from.
        trip: What they must pass.
    """
    if not asked:
        return []
    if trip.check == "extract":
        return _extracted(system, prompts, asked, trip)
    return [_likely(one, trip) for one in _gains(system, asked, trip)]


def _extracted(
    system: RagSystem, prompts: QuestionPrompts, asked: Sequence[tuple[str, Drawn]], trip: RoundTrip
) -> list[tuple[bool, dict[str, Any]]]:
    target = system.generator
    if target.choose is not None:
        target.choose()
    ids = [prompts.reading_ids(drawn.passage.content, question) for question, drawn in asked]
    found = iter(
        generate(
            target.model, [one for one in ids if one is not None], target.tokenizer,
            stop_token_ids=target.stop_token_ids, max_new_tokens=EXTRACT_TOKENS, pads_prompts=target.pads_prompts,
        )
    )  # fmt: skip
    # A prompt that there is no room for is not read.
    answers = ["" if one is None else first_line(next(found).text) for one in ids]
    found_back = []
    for said, (question, drawn) in zip(answers, asked, strict=True):
        score = f1(telling(said, question), " ".join(comparable(drawn.span.text)))
        found_back.append((_is_same(said, drawn.span, score, trip.f1), {"said": said, "f1": round(score, 4)}))
    return found_back


def _is_same(said: str, span: Span, score: float, least: float) -> bool:
    """Whether the answer was said: enough of its words, and all its numbers and no others."""
    numbers, told = ({word for word in comparable(text) if word[:1].isdigit()} for text in (span.text, said))
    if numbers and numbers != told:
        return False
    # A number counts in any sentence that holds no other: "for 16 months" is 16.
    return score >= least or span.kind == "number"


def telling(said: str, question: str) -> str:
    """What an answer tells beyond its question, in `comparable` words: small models answer in whole sentences."""
    known = {*comparable(question), *FILLERS}
    return " ".join(word for word in comparable(said) if word not in known)


def _gains(system: RagSystem, asked: Sequence[tuple[str, Drawn]], trip: RoundTrip) -> list[dict[str, float]]:
    """Of each answer, nats a token that it gains by the passage, by the question, and over the best other span."""
    pairs: list[tuple[list[int], str]] = []
    sizes: list[int] = []
    for question, drawn in asked:
        content = drawn.passage.content
        own = system.prompts.prompt(question, [content]).ids
        neutral = system.prompts.prompt(NEUTRAL, [content]).ids
        spans = [drawn.span.text, *rivals_of(drawn, trip.rivals)]
        pairs.append((system.prompts.prompt(question, []).ids, drawn.span.text))
        pairs += [(own, span) for span in spans] + [(neutral, span) for span in spans]
        sizes.append(len(spans))
    values = iter(answer_log_likelihoods(system.generator, pairs))
    found = []
    for size in sizes:
        alone = next(values)
        own_values, neutral_values = [next(values) for _ in range(size)], [next(values) for _ in range(size)]
        by_question = [own - neutral for own, neutral in zip(own_values, neutral_values, strict=True)]
        gains = {"over_no_passage": own_values[0] - alone, "over_no_question": by_question[0]}
        if size > 1:
            gains["over_other_spans"] = by_question[0] - max(by_question[1:])
        found.append(gains)
    return found


def _likely(gains: dict[str, float], trip: RoundTrip) -> tuple[bool, dict[str, Any]]:
    return all(gain >= trip.margin for gain in gains.values()), {name: round(gain, 4) for name, gain in gains.items()}


def rivals_of(drawn: Drawn, count: int) -> list[str]:
    """Other spans of the passage: those of the same kind first, then by how near they stand."""
    span, passage = drawn.span, drawn.passage
    own = squad_words(span.text)
    others = [one for one in answer_spans(passage.text, context=passage.context) if squad_words(one.text) != own]
    others.sort(key=lambda one: (one.kind != span.kind, abs(one.start - span.start)))
    return [one.text for one in others[:count]]
