"""Scores of generated answers against reference answers, each between 0 and 1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same text, white space at the ends aside."""
    return float(answer.strip() == reference.strip())


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words.

    Source:
        SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250): lower case, without punctuation and articles.
    """
    return _overlap_f1(squad_words(answer), squad_words(reference))


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, precision and recall weighing the same.

    Source:
        ROUGE-L (Lin 2004, aclanthology.org/W04-1013): lower-case letters and digits, no stemming.
    """
    ours, theirs = (re.findall(r"[a-z0-9]+", text.lower()) for text in (answer, reference))
    common = _longest_common_subsequence(ours, theirs)
    return _harmonic(common, len(ours), len(theirs))


def squad_words(text: str) -> list[str]:
    """Words as SQuAD compares them: lower case, without punctuation and articles."""
    lowered = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", lowered).split()


METRICS: dict[str, Callable[[str, str], float]] = {"exact_match": exact_match, "f1": f1, "rouge_l": rouge_l}


def score(answers: Sequence[str], references: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """Mean of each metric over all pairs."""
    pairs = list(zip(answers, references, strict=True))
    return {name: sum(METRICS[name](*pair) for pair in pairs) / len(pairs) for name in metrics}


def _overlap_f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    return _harmonic(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def _harmonic(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0


def _longest_common_subsequence(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        previous = 0
        for index, other in enumerate(right, start=1):
            previous, row[index] = row[index], previous + 1 if word == other else max(row[index], row[index - 1])
    return row[-1]
