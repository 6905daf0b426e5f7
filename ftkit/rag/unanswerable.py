"""Questions that nothing in a corpus answers, made from ones that it does: their names give way to names of nobody.

Every name of the question that its passage holds gets a new one of the same form, spliced from words of the corpus's
names. The new words stand in no passage, not even inside another word, so that no passage can say anything about what
is asked. Other passages come near, which is what a reader must learn to refuse.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ftkit.evaluate.metrics import squad_words
from ftkit.files import sha256_json
from ftkit.rag.passage import Passage
from ftkit.rag.spans import name_spans

NO_NAME = "names nothing of its passage"
NO_NEW_NAME = "no new name of its form was found"
# Splices that are tried for one word before it is given up.
SPLICES = 200
MIN_LETTERS = 4
_PARTS = re.compile(r"^([^\W\d_]+?[aeiouyäöüáéíóú])([^\W\d_]{2,})$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class Unanswerable:
    """Attributes: rows: the questions, with ``answers: []``. wanted: of them. dropped: {reason: count}."""

    rows: list[dict[str, Any]]
    wanted: int
    dropped: dict[str, int]

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of them; made and dropped add up to tried."""
        tried = len(self.rows) + sum(self.dropped.values())
        return {"wanted": self.wanted, "tried": tried, "made": len(self.rows), "dropped": self.dropped}


class Strangers:
    """Words for names, in the form of a corpus's own, that stand nowhere in it.

    Args:
        passages: All of the corpus.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        # Without marks over letters told apart and whatever the case: stricter than any search.
        self._everything = "\n".join(passage.content.casefold() for passage in passages)
        self._small = {word for passage in passages for word in _WORD.findall(passage.content) if word.islower()}
        names = {span.text for passage in passages for span in name_spans(passage.text)}
        words = sorted({word for name in names for word in _WORD.findall(name) if self._is_own(word)})
        parts = [match.groups() for match in map(_PARTS.match, words) if match]
        self._heads, self._tails = [head for head, _ in parts], [tail for _, tail in parts]

    def holds(self, text: str) -> bool:
        """Whether any passage holds a text, in any case, be it inside another word."""
        return text.casefold() in self._everything

    def renamed(self, name: str, draw: random.Random) -> str | None:
        """A name of nobody in the form of another; None where the corpus's names have nothing to make it of.

        Words that are words of the language too, as in "Hollow Creek Bakery", say what kind of thing it is and stay.

        Args:
            name: Of the corpus.
            draw: Draws the splices.
        """
        own = [word for word in _WORD.finditer(name) if self._is_own(word[0])]
        said, at = "", 0
        for word in own:
            new = self._word(word[0], draw)
            if new is None:
                return None
            said, at = said + name[at : word.start()] + new, word.end()
        return said + name[at:] if own else None

    def _is_own(self, word: str) -> bool:
        return word[:1].isupper() and word.lower() not in self._small

    def _word(self, word: str, draw: random.Random) -> str | None:
        for _ in range(SPLICES if self._heads else 0):
            new = draw.choice(self._heads) + draw.choice(self._tails).lower()
            if len(new) >= MIN_LETTERS and not self.holds(new):
                return new.upper() if word.isupper() and len(word) > 1 else new.capitalize()
        return None


def make_unanswerable(
    rows: Sequence[dict[str, Any]],
    passages: Sequence[Passage],
    *,
    share: float,
    known: Iterable[str],
    fault: Callable[[str], str | None],
) -> Unanswerable:
    """Questions without an answer, at most one from each question with one.

    Args:
        rows: Made questions that passages answer.
        passages: All of the corpus.
        share: Of all questions that shall have no answer, from 0 to 0.5; fewer come back where names run out.
        known: Questions that are there already.
        fault: What else is wrong with a question; None where nothing is.
    """
    wanted = round(len(rows) * share / (1 - share))
    made: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    strangers = Strangers(passages) if wanted else None
    seen = {" ".join(squad_words(question)) for question in known}
    contents = {(one.document, one.start, one.end): one.content for one in passages}
    # By their ids, which are digests: as good as drawn, and the same whatever the order.
    for row in sorted(rows, key=lambda row: str(row["id"])):
        if strangers is None or len(made) == wanted:
            break
        content = contents[row["document"], row["passage"]["start"], row["passage"]["end"]]
        question, why = _without_answer(row, content, strangers)
        why = why or fault(question)
        if why is None and " ".join(squad_words(question)) in seen:
            why = "was asked before"
        if why is not None:
            dropped[why] += 1
            continue
        seen.add(" ".join(squad_words(question)))
        made.append(_row(row, question))
    return Unanswerable(rows=made, wanted=wanted, dropped=dict(sorted(dropped.items())))


def _without_answer(row: dict[str, Any], content: str, strangers: Strangers) -> tuple[str, str | None]:
    """The question about somebody else, or what stands in the way."""
    question = row["question"]
    said, at, replaced = "", 0, 0
    held = f" {' '.join(squad_words(content))} "
    # Of the question's text alone, so that two calls draw alike.
    draw = random.Random(f"unanswerable {row['id']}")
    for span in name_spans(question):
        if f" {' '.join(squad_words(span.text))} " not in held:
            continue
        new = strangers.renamed(span.text, draw)
        if new is None:
            continue
        said, at, replaced = said + question[at : span.start] + new, span.end, replaced + 1
    if not replaced:
        named = any(f" {' '.join(squad_words(span.text))} " in held for span in name_spans(question))
        return "", NO_NEW_NAME if named else NO_NAME
    return said + question[at:], None


def _row(row: dict[str, Any], question: str) -> dict[str, Any]:
    return {
        "id": f"synthetic-{sha256_json([row['id'], question])[:16]}",
        "question": question,
        "answers": [],
        "made_from": row["id"],
        "synthetic": True,
    }
