"""A classifier that tells the form of the wanted answers from that of the untuned model's, whatever they say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftkit.compare.foils import spread
from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, mean_of
from ftkit.files import sha256_json, write_json
from ftkit.hybrid.logistic import Logistic, fit_logistic
from ftkit.notices import log
from ftkit.rag.evaluation import Evaluation
from ftkit.rag.figures import cluster_of
from ftkit.rag.questions import AskedQuestion

FOLDS = 5
FEWEST = 16  # answers of either kind
CRISP = 0.8  # held-out accuracy below which the two are no different forms
MOST_PATTERNS = 200
SHARE_OF_TEXTS = 0.1  # that a pattern stands in, of either kind, to be looked at
L2 = 0.1
REFERENCE = 1

_TOKEN = re.compile(r"\w+|\n|[^\w\s]+")


@dataclass(frozen=True, kw_only=True)
class StyleJudge:
    """A fitted classifier of form.

    Attributes:
        patterns: Marks, shapes of words and common small words that it looks for.
        model: Of `_features`; class 1 is the form of the references.
        accuracy: Held out: of answers to questions of documents that it was not fitted on.
    """

    patterns: tuple[str, ...]
    model: Logistic
    accuracy: float

    @property
    def is_crisp(self) -> bool:
        """Whether there is a form to be taken on: one that can be told from the untuned model's."""
        return self.accuracy >= CRISP

    def likeness(self, texts: Sequence[str]) -> list[float]:
        """How probably each text has the form of the references rather than that of the untuned model, 0 to 1."""
        if not texts:
            return []
        return [float(one) for one in self.model.probabilities(_features(texts, self.patterns))[:, REFERENCE]]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the wanted answers are said, and how the untuned model says its own; asked for when it is first needed.

    Attributes:
        bare: The untuned model, asked without passages.
        given: The same with those that it finds.
        asked: Training questions with an answer; every second one is asked with passages.
        kept: A file for what it said.
    """

    bare: Seat
    given: Seat
    asked: tuple[AskedQuestion, ...]
    kept: Path

    @cached_property
    def judge(self) -> StyleJudge | None:
        """None where there are too few questions, or the untuned model hardly answers."""
        references = [one.answers[0] for one in self.asked]
        judge = fit_style(references, self._said, [cluster_of(one) for one in self.asked])
        if judge is None:
            log.warning("measure.style: too few answers of the untuned model to learn its form from")
        elif not judge.is_crisp:
            log.warning(
                "measure.style: the form of the wanted answers is told from that of the untuned model's in %.0f %% "
                "of held-out answers: too seldom to measure it",
                100 * judge.accuracy,
            )
        return judge

    @property
    def _said(self) -> list[str]:
        if not self.kept.is_file():
            log.info("style: what the untuned model says to %d training questions", len(self.asked))
            said = [""] * len(self.asked)
            for seat, start in ((self.bare, 0), (self.given, 1)):
                answers = seat.answers(self.asked[start::2])
                said[start::2] = ["" if one.abstained else one.text for one in answers]
            write_json(self.kept, said)
        return [str(one) for one in json.loads(self.kept.read_text(encoding="utf-8"))]

    def measure(self, evaluation: Evaluation) -> Sheet | None:
        """``style_likeness``: how probably the answers have the form of the references; who refuses has not.

        None where the two forms cannot be told apart.
        """
        judge = self.judge
        if judge is None or not judge.is_crisp:
            return None
        outcomes = evaluation.outcomes
        likeness = judge.likeness([one.text or "" for one in outcomes])
        return Sheet(
            units=tuple(one.question.id for one in outcomes),
            clusters=tuple(cluster_of(one.question) for one in outcomes),
            figures={
                "style_likeness": mean_of(
                    [value if one.text else 0.0 for one, value in zip(outcomes, likeness, strict=True)],
                    [bool(one.question.answers) for one in outcomes],
                )
            },
        )

    def to_dict(self) -> dict[str, Any] | None:
        """How far the judge can be trusted; None before the untuned model was asked."""
        if not self.kept.is_file():
            return None
        judge = self.judge
        return {
            "questions": len(self.asked),
            "held_out_accuracy": None if judge is None else judge.accuracy,
            "crisp": judge is not None and judge.is_crisp,
        }


def manner_of(
    bare: Seat, given: Seat, questions: Sequence[AskedQuestion], *, count: int, ground: Sequence[object], folder: Path
) -> Manner:
    """What the form of answers is judged by.

    Args:
        bare: The untuned model, asked without passages.
        given: The same with those that it finds.
        questions: Of training.
        count: Of them that are asked at most.
        ground: All that decides the model's answers beside the questions.
        folder: For what it said.
    """
    asked = tuple(spread([one for one in questions if one.answers], count))
    key = sha256_json([*ground, [[one.id, one.question, one.answers] for one in asked]])[:12]
    return Manner(bare=bare, given=given, asked=asked, kept=folder / f"style-{key}.json")


def fit_style(references: Sequence[str], untuned: Sequence[str], clusters: Sequence[str]) -> StyleJudge | None:
    """Fit a judge on what was wanted and what the untuned model said, for the same questions.

    Names, numbers and all words with a meaning are seen by their shape alone, so that a wrong answer in the right
    form is like the references, and a right one in another form is not.

    Args:
        references: An answer to each question.
        untuned: What the model said to each before it was tuned; an empty one is left out.
        clusters: Of each question; accuracy is measured on clusters that were not fitted on.

    Returns:
        None where there are too few of either, or where all are of one cluster.
    """
    texts = [(text, REFERENCE, cluster) for text, cluster in zip(references, clusters, strict=True)]
    texts += [(text, 1 - REFERENCE, cluster) for text, cluster in zip(untuned, clusters, strict=True) if text.strip()]
    counts = Counter(label for _, label, _ in texts)
    names = sorted(set(clusters))
    if min(counts[0], counts[1]) < FEWEST or len(names) < FOLDS:
        return None
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    right: Counter[int] = Counter()
    for fold in range(FOLDS):
        held = [one for one in texts if fold_of[one[2]] == fold]
        patterns, model = _fit([one for one in texts if fold_of[one[2]] != fold])
        classes = model.classes(_features([text for text, _, _ in held], patterns))
        right.update(label for (_, label, _), said in zip(held, classes, strict=True) if said == label)
    # Each kind weighs the same: where the model is mostly silent, to say "reference" of everything is not accurate.
    accuracy = (right[0] / counts[0] + right[1] / counts[1]) / 2
    patterns, model = _fit(texts)
    return StyleJudge(patterns=patterns, model=model, accuracy=accuracy)


def _fit(texts: Sequence[tuple[str, int, str]]) -> tuple[tuple[str, ...], Logistic]:
    patterns = _patterns_in([(text, label) for text, label, _ in texts])
    features = _features([text for text, _, _ in texts], patterns)
    return patterns, fit_logistic(features, [label for _, label, _ in texts], classes=2, l2=L2)


def _patterns_in(texts: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Those that stand in enough texts of either kind; the commonest, in a fixed order."""
    found: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for text, label in texts:
        found[label].update(set(_marks(text)))
    sizes = Counter(label for _, label in texts)
    shares = {
        pattern: max(found[label][pattern] / max(1, sizes[label]) for label in found)
        for pattern in {*found[0], *found[1]}
    }
    common = [pattern for pattern, share in shares.items() if share >= SHARE_OF_TEXTS]
    return tuple(sorted(common, key=lambda pattern: (-shares[pattern], pattern))[:MOST_PATTERNS])


def _features(texts: Sequence[str], patterns: Sequence[str]) -> Tensor:
    """(texts, patterns + 2), float64: whether each pattern is there, and the logarithms of words and letters."""
    rows = []
    for text in texts:
        marks = set(_marks(text))
        lengths = torch.tensor([1.0 + len(text.split()), 1.0 + len(text)], dtype=torch.float64).log()
        rows.append([*(float(pattern in marks) for pattern in patterns), *lengths.tolist()])
    return torch.tensor(rows, dtype=torch.float64)


def _marks(text: str) -> list[str]:
    """The shapes of a text's tokens, one by one and in pairs, with its beginning and its end."""
    shapes = ["^", *map(_shape, _TOKEN.findall(text.strip())), "$"]
    return [*shapes[1:-1], *(f"{one} {other}" for one, other in pairwise(shapes))]


def _shape(token: str) -> str:
    """A small word as it is, without regard to capitals; of any other what it is made of."""
    if token.lower() in SMALL_WORDS:
        return token.lower()
    if not token[0].isalnum():
        return token[0]
    if token.isdigit():
        return "9"
    if token.isalpha():
        return "x" if token.islower() else "X" if len(token) > 1 and token.isupper() else "Xx"
    return "x9"


# What holds a sentence together or is courtesy: form, not content. Of other languages shapes and marks remain.
_SMALL_WORDS = """
a an and are as at be been but by can could did do does for from had has have he her his i if in is it its may me my
no not of on or our shall she should so than that the their them then there these they this those to us was we were
which who will with would yes you your answer certainly glad help here hope let please question sorry sure thank
thanks unfortunately
"""
SMALL_WORDS = frozenset(_SMALL_WORDS.split())
