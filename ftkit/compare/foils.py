"""Wrong answers that could be right: of the same form as the right one, taken from the other questions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ftkit.rag.blame import YES_NO, Wanted, comparable, is_right, searchable
from ftkit.rag.questions import AskedQuestion

_NUMBER = re.compile(r"[\d.,]*\d")


def form_of(answer: str) -> str:
    """What an answer looks like: a year, a number, a name of so many words, a phrase.

    Answers of one form may stand for each other without the sentence around them telling.
    """
    words = answer.split()
    if _NUMBER.fullmatch(answer.strip()):
        return f"number of {len(re.sub(r'[^0-9]', '', answer))} digits"
    if not words or comparable(answer) in [[word] for word in YES_NO]:
        return "none"
    if any(letter.isdigit() for letter in answer):
        return f"{len(words)} words with a number"
    if words[0][:1].isupper():
        return "name" if len(words) <= 4 else "sentence"
    return f"phrase of {min(len(words), 8)} words"


def foil_for(asked: AskedQuestion, others: Sequence[AskedQuestion], text: str) -> str | None:
    """Another answer of the same form, which does not stand in a text; None where there is none.

    Which one depends on the question alone, so that all systems meet the same.

    Args:
        asked: With an answer.
        others: Whose first answers are taken.
        text: In which the answer is to be replaced.
    """
    right = asked.answers[0]
    form = form_of(right)
    if form == "none":
        return None
    words = searchable(text)
    known = {tuple(comparable(one)) for one in asked.answers}
    chosen = {
        one.answers[0]
        for one in others
        if one.answers
        and form_of(one.answers[0]) == form
        and tuple(comparable(one.answers[0])) not in known
        and not is_right(one.answers[0], asked.answers)
        and not is_right(right, [one.answers[0]])
        and searchable(one.answers[0]) not in words
    }
    return min(chosen, key=lambda one: hashlib.sha256(f"{asked.id}\n{one}".encode()).digest(), default=None)


def replaced(text: str, answer: str, foil: str) -> str | None:
    """The text with the answer replaced wherever it stands as a whole; None where it does not stand so."""
    whole = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    return whole.sub(lambda _: foil, text) if whole.search(text) else None


def states(text: str, asked: AskedQuestion) -> bool:
    """Whether a text holds a right answer, in any of its forms."""
    return Wanted(asked.answers).stands_in(searchable(text))


def spread(asked: Sequence[AskedQuestion], count: int) -> list[AskedQuestion]:
    """At most so many questions, the same whatever others there are."""
    ranked = sorted(asked, key=lambda one: hashlib.sha256(f"{one.id}\n{one.question}".encode()).digest())
    chosen = {id(one) for one in ranked[:count]}
    return [one for one in asked if id(one) in chosen]
