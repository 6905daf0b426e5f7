"""When two questions are the same one: equal but for writing, one within the other, or nearly equal.

`ftkit.data.near` judges what is boilerplate by all rows that it searches. Here that would be the wrong judge: a test
question that many people ask in slightly different words would make its own n-grams common in the log, and be found
no more. So boilerplate is judged by the test questions alone, and what the log holds changes nothing.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from ftkit.data.near import MIN_NGRAMS, THRESHOLD
from ftkit.data.ngrams import NGRAM, common_limit

CONTAINED = 0.9  # share of a question's n-grams that stand in a longer text
# Of a question that is looked for inside of other texts: so many words, or of fewer words so many letters. "Why?" and
# "Hello" would be found everywhere, and say nothing of the test.
FEWEST_WORDS, FEWEST_LETTERS = 3, 7
FEWEST_SIGNS = 4  # in writings that put no spaces between words, where a sign says more
_NO_LETTERS = re.compile(r"[\W_]+")
# Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
Likeness = Literal["exact", "near"]


def close(text: str) -> str:
    """A text without what a reader hardly sees: case, white space, forms of one character."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def loose(text: str) -> str:
    """The same without punctuation; as `close` has it where nothing else would be left."""
    return _NO_LETTERS.sub(" ", close(text)).strip() or close(text)


def is_telling(text: str) -> bool:
    """Whether a question says enough to be looked for inside of other texts."""
    text = loose(text)
    letters = text.replace(" ", "")
    if _UNSPACED.search(text):
        return len(letters) >= FEWEST_SIGNS
    return len(text.split()) >= FEWEST_WORDS or len(letters) >= FEWEST_LETTERS


class Known:
    """Questions that others are held against.

    Args:
        questions: As they were written.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        self._texts = list(dict.fromkeys(loose(one) for one in questions))
        self._equal = set(self._texts)
        sets = [_ngrams(text) for text in self._texts]
        rows = Counter(gram for grams in sets for gram in grams)
        limit = common_limit(len(sets))
        self._common = {gram for gram, count in rows.items() if count > limit}
        self._sets = sets
        self._places: dict[str, list[int]] = {}
        for place, grams in enumerate(sets):
            telling = grams - self._common
            if len(telling) >= MIN_NGRAMS:
                for gram in telling:
                    self._places.setdefault(gram, []).append(place)
        self._begins: dict[tuple[str, ...], list[str]] = {}
        self._short: set[str] = set()
        self._unspaced: list[str] = []
        for text in filter(is_telling, self._texts):
            words = text.split()
            if _UNSPACED.search(text):
                self._unspaced.append(text.replace(" ", ""))
            elif len(words) >= FEWEST_WORDS:
                self._begins.setdefault(tuple(words[:FEWEST_WORDS]), []).append(text)
            else:
                self._short.add(text)

    def like(self, texts: Sequence[str]) -> Likeness | None:
        """How one of some texts is like a known question; None where none is."""
        written = [loose(text) for text in texts]
        if any(text in self._equal for text in written):
            return "exact"
        return "near" if any(self._holds(text) or self._is_near(text) for text in written) else None

    def _holds(self, text: str) -> bool:
        """Whether a known question stands in a text, word by word; sign by sign where words have no spaces."""
        if self._unspaced and _UNSPACED.search(text):
            together = text.replace(" ", "")
            if any(known in together for known in self._unspaced):
                return True
        words, around = text.split(), f" {text} "
        if self._short and not self._short.isdisjoint([*words, *map(" ".join, itertools.pairwise(words))]):
            return True
        starts = {tuple(words[at : at + FEWEST_WORDS]) for at in range(len(words) - FEWEST_WORDS + 1)}
        return any(f" {known} " in around for start in starts for known in self._begins.get(start, ()))

    def _is_near(self, text: str) -> bool:
        grams = _ngrams(text)
        telling = grams - self._common
        shared = Counter(place for gram in telling for place in self._places.get(gram, ()))
        for place, count in shared.items():
            theirs = self._sets[place]
            their_telling = len(theirs - self._common)
            both = len(grams & theirs)
            # With boilerplate as well as without it, whichever says less.
            union = min(both / len(grams | theirs), count / (len(telling) + their_telling - count))
            if union >= THRESHOLD or min(both / len(theirs), count / their_telling) >= CONTAINED:
                return True
        return False


def _ngrams(text: str) -> set[str]:
    """Of characters: questions are short, and have few n-grams of words."""
    return {text[at : at + NGRAM] for at in range(len(text) - NGRAM + 1)}
