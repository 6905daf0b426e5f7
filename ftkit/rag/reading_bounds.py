"""How long readings can be and must be, and what the generator takes to learn from them, without a search.

Which passages stand beside the right one is known once the index is searched. Without that there are bounds: with the
longest passages of the corpus beside it, and with the shortest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftkit.data.example import lengths_of
from ftkit.data.prepare import PreparedData
from ftkit.errors import Problem
from ftkit.pipeline.estimate import Estimate, estimate
from ftkit.pipeline.session import Session
from ftkit.rag.audit import Passages
from ftkit.rag.blame import Wanted
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.raft import draws_of
from ftkit.rag.reader import REFUSAL, ReaderPrompts
from ftkit.recipe import DataSection

ANY_LENGTH = 1 << 20
# Stands for questions that are still to be made.
UNWRITTEN = AskedQuestion(
    question="What is said in the passages about it, and who was it that said so?",
    answers=("what the document says in as many words as an answer may have",),
    place="a question still to be made",
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What decides what is read, as the recipe has it.

    Attributes:
        given: Passages that the reader is given.
        candidates: Passages that vectors find.
        without_gold: Share of the questions whose passages lack the answer.
        seed: Of what is drawn.
        one_by_one: Whether a stage reads candidates each by itself, any of which may be the longest of the corpus.
        max_length: Tokens allowed.
    """

    given: int
    candidates: int
    without_gold: float
    seed: int
    one_by_one: bool
    max_length: int


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is known of the readings.

    Attributes:
        longest: Tokens of the longest that may come up.
        may: Questions whose readings may be longer than is allowed.
        must: One problem for each question whose readings certainly are.
        data: The longest readings, none longer than is allowed, as the generator would learn them.
    """

    longest: int
    may: tuple[AskedQuestion, ...]
    must: tuple[Problem, ...]
    data: PreparedData


def reading_bounds(
    session: Session,
    passages: Passages,
    train: Sequence[AskedQuestion],
    held: Sequence[AskedQuestion],
    setting: Setting,
) -> Bounds:
    """Bound the readings of some questions.

    Args:
        session: Of the generator; its own data is not read.
        passages: Of the corpus.
        train: Questions to learn from; empty where they are still to be made.
        held: Questions held back.
        setting: Of the recipe.
    """
    train = list(train) or [UNWRITTEN]
    asked = [*train, *held]
    rows, max_length = _Rows(session, passages, setting), setting.max_length
    data = _prepared(session, [rows.longest(one) for one in asked])
    lengths = lengths_of(data.train)
    may = [one for one, length in zip(asked, lengths, strict=True) if length > max_length]
    must: list[Problem] = []
    if may:
        least = lengths_of(_prepared(session, [rows.shortest(one) for one in may]).train)
        must = [
            Problem(
                where=one.place,
                what=f"a reading of at least {length} tokens; data.max_length allows {max_length}",
                fix=f"Set data.max_length to {max(lengths)}, or lower corpus.passage_tokens or reader.passages.",
            )
            for one, length in zip(may, least, strict=True)
            if length > max_length
        ]
    # No reading longer than is allowed is ever learnt, so none takes memory.
    examples = [one.cut(max_length) for one in data.train]
    split = replace(data, train=examples[: len(train)], validation=examples[len(train) :])
    return Bounds(longest=max(lengths), may=tuple(may), must=tuple(must), data=split)


def _prepared(session: Session, rows: list[dict[str, Any]]) -> PreparedData:
    section = DataSection.model_validate(
        {"train": rows, "validation": None, "max_length": ANY_LENGTH, "near_duplicates": False}
    )
    recipe = session.recipe.model_copy(update={"data": section})
    data = replace(session, recipe=recipe).prepare_data()
    assert len(data.train) == len(rows), "every row is kept, in its place, or is an error"
    return data


class _Rows:
    """Makes the longest conversation that a question may become, and one that is certainly no longer than its own."""

    def __init__(self, session: Session, passages: Passages, setting: Setting) -> None:
        self._prompts = ReaderPrompts(session.tokenizer, room=None)
        self._passages, self._setting = passages, setting
        counted = session.tokenizer(passages.distinct, add_special_tokens=False, verbose=False)["input_ids"]
        self._size = {content: len(ids) for content, ids in zip(passages.distinct, counted, strict=True)}
        self._ranked = sorted(passages.distinct, key=lambda content: self._size[content])

    def longest(self, asked: AskedQuestion) -> dict[str, Any]:
        given = self._setting.given
        # Read by itself, the longest passage of all may be a candidate too.
        right = [] if given == 1 and self._setting.one_by_one else self._right(asked)
        shown = [max(found, key=lambda one: self._size[one]) for found in right]
        shown = self._filled(shown, self._ranked[::-1], given)
        return self._row(asked, shown, max((*asked.answers[:1], REFUSAL), key=len))

    def shortest(self, asked: AskedQuestion) -> dict[str, Any]:
        given = self._setting.given
        lacking = draws_of(asked, self._setting.seed).random() < self._setting.without_gold
        if not asked.answers:
            shown = self._ranked[: min(given, self._setting.candidates)]
        elif lacking or not asked.documents:
            shown = self._ranked[: max(1, min(given, self._others(asked)))]
        else:
            right = [min(found, key=lambda one: self._size[one]) for found in self._right(asked)]
            shown = self._filled(right, self._ranked, min(given, len(right) + self._others(asked)))
        return self._row(asked, shown, min((*asked.answers[:1], REFUSAL), key=len))

    def _right(self, asked: AskedQuestion) -> list[list[str]]:
        """Of each document that a question needs, the passages that may be taken for the right one."""
        stating = self._passages.stating(asked) if asked.answers else {}
        return [found[:1] or self._passages.of[name] for name, found in stating.items()][: self._setting.given]

    def _others(self, asked: AskedQuestion) -> int:
        """How many wrong passages are found at least: of no document of the answer, and not stating it."""
        if not asked.documents:
            return 0
        wanted = Wanted(asked.answers)
        own = {content for name in asked.documents for content in self._passages.of.get(name, ())}
        pairs = zip(self._passages.distinct, self._passages.searched, strict=True)
        taken = sum(content in own or wanted.stands_in(text) for content, text in pairs)
        return max(0, min(self._setting.candidates, len(self._ranked)) - taken)

    @staticmethod
    def _filled(right: list[str], others: list[str], count: int) -> list[str]:
        shown = list(dict.fromkeys(right))
        missing = max(0, count - len(shown))
        return shown + [content for content in others[: count + len(shown)] if content not in shown][:missing]

    def _row(self, asked: AskedQuestion, shown: list[str], answer: str) -> dict[str, Any]:
        return {
            "messages": [
                {"role": "user", "content": self._prompts.text(asked.question, shown)},
                {"role": "assistant", "content": answer},
            ]
        }


def generator_needs(session: Session, bounds: Bounds, *, learns: bool, encoder_bytes: int) -> Estimate:
    """What the generator takes on the longest readings, with the encoders beside it.

    Args:
        session: Of the generator.
        bounds: Of its readings.
        learns: Whether any stage trains it.
        encoder_bytes: What the encoders take beside it.
    """
    needs = estimate(session, bounds.data)
    if not learns:
        needs = replace(needs, training=0, trainable_parameters=0)
    return replace(needs, training=needs.training + encoder_bytes)
