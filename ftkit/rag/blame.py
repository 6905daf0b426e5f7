"""Which step of a system lost an answer: exactly one for each question.

The steps are held to the question in the order in which they run, and the first one that failed is blamed:

    correct        the answer is right; without an answer in the documents, abstaining is
    not_indexed    a document that the answer needs is not in the index, or no passage of them holds the answer
    not_retrieved  the index holds it, and what the reader was given does not
    not_read       the reader was given it, and abstained or took something else from the passages
    unsupported    the answer is invented: the reader was given the right one and says what stands in no passage, or
                   it answers what no document answers

An answer that a threshold withholds is an abstention like any other: with the right passage given it was not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ftkit.evaluate.metrics import squad_words

Blame = Literal["correct", "not_indexed", "not_retrieved", "not_read", "unsupported"]
BLAMES: tuple[Blame, ...] = ("correct", "not_indexed", "not_retrieved", "not_read", "unsupported")
YES_NO = ("yes", "no")
_NUMBERS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
# Scripts that put no spaces between words: Chinese, Japanese, Thai.
_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_MARKS = re.compile(r"\[\d{1,2}\]")  # how a reader names one of its passages
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMALS = re.compile(r"(\d)\.(\d+)")
# Say nothing by themselves: an answer in a whole sentence is not invented because the passage words it otherwise.
FILLERS = frozenset(
    squad_words(
        "according am and answer are as at based be been by did do does for from given had has have he her his i in "
        "is it its of on or our passage passages question she so stated that their there they this to was we were "
        "which who will with you your"
    )
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the steps before the reader did for one question.

    Attributes:
        indexed: The searched passages of the documents that the answer needs hold it, and all of those documents are
            in the index.
        given: The reader was given a passage that holds it, and one of each document that the answer needs.
        in_passages: All that the answer says stands in one of the passages that the reader was given.
    """

    indexed: bool
    given: bool
    in_passages: bool


def blame(answers: Sequence[str], said: str | None, evidence: Evidence) -> Blame:
    """The one class that a question falls in.

    Args:
        answers: The right ones; empty where there is none.
        said: The system's answer; None where it abstained.
        evidence: Of this question.
    """
    if is_right(said, answers):
        return "correct"
    if not answers:
        return "unsupported"
    if not evidence.indexed:
        return "not_indexed"
    if not evidence.given:
        return "not_retrieved"
    return "not_read" if said is None or evidence.in_passages else "unsupported"


def is_right(said: str | None, answers: Sequence[str]) -> bool:
    """Whether an answer is right, in a sentence or by itself.

    It must hold the words of a right answer one after the other, as `comparable` gives them. Where that is a number,
    it may hold no other number; where it is yes or no, it must begin with it. Without a right answer, only
    abstaining is right.

    Args:
        said: The answer; None where the system abstained.
        answers: The right ones.
    """
    if said is None or not answers:
        return said is None and not answers
    words = comparable(said)
    return any(_says(words, comparable(answer)) for answer in answers)


def comparable(text: str) -> list[str]:
    """Words in SQuAD's normalisation, with 1,200 = 1200, 3.50 = 3.5 (and not 350), two = 2, and without [2]."""
    plain = _DECIMALS.sub(_decimal, _THOUSANDS.sub("", _MARKS.sub(" ", text)))
    return [_NUMBERS.get(word, word) for word in squad_words(plain)]


class Wanted:
    """Looks for the right answers of a question in passages.

    No passage spells out a yes or a no: any passage of the right document is taken to hold it.

    Args:
        answers: As they stand in the question set.
    """

    def __init__(self, answers: Sequence[str]) -> None:
        wanted = [comparable(answer) for answer in answers]
        self._anywhere = any(answer == [word] for answer in wanted for word in YES_NO)
        self._spaced = [_spaced(answer) for answer in wanted if answer]
        self._unspaced = [text for text in map("".join, wanted) if _UNSPACED.search(text)]

    def stands_in(self, passage: str) -> bool:
        """Whether a passage, as `searchable` gives it, holds one of them."""
        if self._anywhere or any(answer in passage for answer in self._spaced):
            return True
        return bool(self._unspaced) and any(answer in passage.replace(" ", "") for answer in self._unspaced)


def searchable(text: str) -> str:
    """A text's `comparable` words, each between spaces, so that answers are found as whole words."""
    return _spaced(comparable(text))


def stands_in(said: str, question: str, passages: Iterable[Sequence[str]]) -> bool:
    """Whether what an answer tells beyond its question stands in one passage.

    That is its names and numbers, or all its words where it has none: whole sentences word things otherwise than the
    passage that they were taken from.

    Args:
        said: The answer.
        question: Its words need not stand anywhere.
        passages: `comparable` words of each passage.
    """
    known = {*comparable(question), *FILLERS, *YES_NO}
    new = {word: written for written in said.split() for word in comparable(written) if word not in known}
    telling = {word for word, written in new.items() if _is_number(word) or any(map(str.isupper, written))}
    return any(all(word in one or _is_part(word, one) for word in telling or new) for one in passages)


def _says(words: Sequence[str], answer: Sequence[str]) -> bool:
    if list(words) == list(answer):
        return True
    if not answer:
        return False
    if len(answer) == 1 and answer[0] in YES_NO:
        return list(words[:1]) == list(answer)
    if len(answer) == 1 and _is_number(answer[0]):
        return {word for word in words if _is_number(word)} == {answer[0]}
    return _runs(words, answer)


def _runs(words: Sequence[str], answer: Sequence[str]) -> bool:
    if not answer:
        return False
    return _spaced(answer) in _spaced(words) or _is_part("".join(answer), words)


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "


def _is_part(text: str, words: Sequence[str]) -> bool:
    """Whether a text without spaces between its words stands within words that are not told apart either."""
    return bool(_UNSPACED.search(text)) and text in "".join(words)


def _is_number(word: str) -> bool:
    return word[:1].isdigit() and word.replace("point", "").isdigit()


def _decimal(found: re.Match[str]) -> str:
    places = found[2].rstrip("0")
    return f"{found[1]}point{places}" if places else found[1]
