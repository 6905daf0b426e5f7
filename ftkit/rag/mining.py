"""What questions are trained with: the passage that holds the answer, and those that are easily taken for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftkit.rag.blame import YES_NO, Wanted, comparable, searchable
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.index import Index
from ftkit.rag.passage import Passage
from ftkit.rag.questions import AskedQuestion
from ftkit.train.progress import ProgressBar


@dataclass(frozen=True, kw_only=True)
class Mined:
    """A question and its passages.

    Attributes:
        asked: The question.
        gold: One passage of each document that the answer needs; empty where none is known.
        found: What the searches give, best by vectors first, then by words; each once.
        negatives: Those of ``found`` that stand in no document of the answer and do not state it.
    """

    asked: AskedQuestion
    gold: tuple[Passage, ...]
    found: tuple[Passage, ...]
    negatives: tuple[Passage, ...]

    def candidates(self, count: int) -> tuple[Passage, ...]:
        """What may be where the answer comes from: the known passages, then the best that were found."""
        chosen = {passage.content: passage for passage in (*self.gold, *self.found)}
        return tuple(chosen.values())[:count]


def mine(
    index: Index, encoders: EncoderPair, questions: Sequence[AskedQuestion], *, dense: int, lexical: int
) -> list[Mined]:
    """Search for every question.

    Args:
        index: Made by the encoders.
        encoders: Both.
        questions: None longer than the encoder reads.
        dense: Passages by vectors.
        lexical: Passages by words.

    Returns:
        In the order of the questions.

    Raises:
        DataError: A question is longer than the encoder reads.
    """
    if not questions:
        return []
    with ProgressBar("looking for passages", len(questions)) as bar:
        queries = encoders.query.vectors([asked.question for asked in questions], "query")
        near = index.dense(queries, dense, encoder_sha256=encoders.sha256)
        mined = []
        for number, (asked, hits) in enumerate(zip(questions, near, strict=True), start=1):
            fitting = index.lexical(asked.question, lexical) if lexical else []
            found = {hit.passage.id: hit.passage for hit in (*hits, *fitting)}
            mined.append(_mined(index, asked, tuple(found.values())))
            bar(number, len(questions))
    return mined


def _mined(index: Index, asked: AskedQuestion, found: tuple[Passage, ...]) -> Mined:
    spans = [answer for answer in asked.answers if comparable(answer) not in [[word] for word in YES_NO]]
    wanted = Wanted(spans)
    stating = {passage.id for passage in found if wanted.stands_in(searchable(passage.content))}
    gold = tuple(_gold(index, asked, wanted, found)) if asked.answers else ()
    if not gold and asked.answers and not asked.documents:
        gold = tuple(passage for passage in found if passage.id in stating)[:1]
    documents = {*asked.documents, *(passage.document for passage in gold)}
    negatives = tuple(passage for passage in found if passage.document not in documents and passage.id not in stating)
    return Mined(asked=asked, gold=gold, found=found, negatives=negatives)


def gold_passages(index: Index, asked: AskedQuestion) -> list[Passage]:
    """Of each document that a question names, the passage that states an answer, else its first."""
    return list(_gold(index, asked, Wanted(asked.answers), ()))


def _gold(index: Index, asked: AskedQuestion, wanted: Wanted, found: Sequence[Passage]) -> Iterator[Passage]:
    """Of each named document the passage that states the answer, else the one that is found first, else its first."""
    for document in asked.documents:
        own = index.passages_of(document)
        stating = [passage for passage in own if wanted.stands_in(searchable(passage.content))]
        ranked = [passage for passage in found if passage.document == document]
        yield from [*stating, *ranked, *own][:1]
