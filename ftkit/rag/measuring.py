"""One question through a system, with all that is needed to score and to blame it, kept line by line on the disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ftkit.errors import DataError, Problem
from ftkit.files import sha256_json
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.blame import Evidence, Wanted, comparable, searchable, stands_in
from ftkit.rag.cited import CitedAnswer
from ftkit.rag.index import Index
from ftkit.rag.likelihood import gives_likelihoods, has_room
from ftkit.rag.measured import Cited, Measured, append_measured, read_measured
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion
from ftkit.train.progress import ProgressBar

# Passages that a search is judged by, however few of them the reader is given.
DEPTH = 20
CACHE_VERSION = 2  # 1 had the confidence of an answer as it is tokenised by itself
ALONE = 8  # of the questions asked in batches, those that are asked by themselves
Pair = tuple[AskedQuestion, str]


class Finder(Protocol):
    """Where the passages of a question come from, instead of the system's own search."""

    name: str

    def __call__(self, question: AskedQuestion, count: int) -> list[Hit]:
        """Passages, best first, at most ``count``."""


def measure(
    system: RagSystem,
    questions: Sequence[AskedQuestion],
    *,
    cache: Path | None = None,
    finder: Finder | None = None,
    confidences: bool = True,
    together: int = 1,
) -> list[Measured]:
    """Ask every question.

    Args:
        system: Its threshold is left aside: it is applied when the answers are scored.
        questions: At least one.
        cache: A file to keep each answer in as it comes. Those that it holds of the same index version, generator,
            settings and question are not asked again.
        finder: Gives the passages; None for the system's own search.
        confidences: Whether answers get one; each costs a forward pass.
        together: Answers generated in one batch. The first ones are generated alone all the same, to tell latencies.

    Raises:
        DataError: Naming every question that encoder or generator cannot read, before the first is asked.
    """
    likely = gives_likelihoods(system.generator)
    bare = replace(system, threshold=None, measures_confidence=likely and confidences)
    if not likely:
        log.warning("this generator gives no likelihoods: there is no nll and no confidence in its answers")
    require_readable(bare, questions)
    texts = IndexTexts(system.index)
    keys = _keys(bare, questions, None if finder is None else finder.name)
    known = {} if cache is None else read_measured(cache)
    found: list[Measured] = []
    pairs = list(zip(questions, keys, strict=True))
    with ProgressBar("asking", len(questions)) as bar:
        for group in _groups(pairs, together):
            # A group that was cut off is asked again as a whole: in a smaller batch its last digits may differ.
            if any(key not in known for _, key in group):
                answers = _ask(bare, [question for question, _ in group], texts, finder)
                known |= {key: answer for (_, key), answer in zip(group, answers, strict=True)}
                if cache is not None:
                    append_measured(cache, {key: known[key] for _, key in group})
            found += [known[key] for _, key in group]
            bar.update(len(found))
    return found


def _groups(pairs: Sequence[Pair], together: int) -> Iterator[Sequence[Pair]]:
    alone = len(pairs) if together == 1 else min(ALONE, len(pairs))
    yield from (pairs[number : number + 1] for number in range(alone))
    yield from (pairs[start : start + together] for start in range(alone, len(pairs), together))


class IndexTexts:
    """The words of an index's passages, to look for answers in.

    Args:
        index: Is not written to meanwhile.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[str, list[str]] = {}

    def holds(self, question: AskedQuestion) -> bool:
        """Whether searched passages hold an answer, all documents that it needs being there.

        Only passages of those documents are looked at; of all documents where the question names none.
        """
        if not question.answers:
            return False
        wanted = Wanted(question.answers)
        if not question.documents:
            return any(map(wanted.stands_in, self._all))
        passages = [self._of(document) for document in question.documents]
        return all(passages) and any(wanted.stands_in(one) for some in passages for one in some)

    @cached_property
    def _all(self) -> list[str]:
        return [searchable(passage.content) for passage in self._index.all_passages()]

    def _of(self, document: str) -> list[str]:
        if document not in self._known:
            self._known[document] = [searchable(one.content) for one in self._index.passages_of(document)]
        return self._known[document]


def _ask(
    system: RagSystem, questions: Sequence[AskedQuestion], texts: IndexTexts, finder: Finder | None
) -> list[Measured]:
    found = [_find(system, question, finder) for question in questions]
    if len(questions) == 1:
        hits, seconds = found[0]
        answers = [system.read(questions[0].question, hits[: system.passages], seconds)]
    else:
        given = [(asked.question, hits[: system.passages]) for asked, (hits, _) in zip(questions, found, strict=True)]
        answers = system.read_together(given)
    return [
        _scored(system, question, hits, seconds, answer, texts, alone=len(questions) == 1)
        for question, (hits, seconds), answer in zip(questions, found, answers, strict=True)
    ]


def _find(system: RagSystem, question: AskedQuestion, finder: Finder | None) -> tuple[list[Hit], float]:
    depth = max(DEPTH, system.passages)
    if finder is None:
        return system.timed_hits(question.question, depth)
    started = time.perf_counter()
    return finder(question, depth), time.perf_counter() - started


def _scored(
    system: RagSystem,
    question: AskedQuestion,
    hits: Sequence[Hit],
    seconds: float,
    answer: CitedAnswer,
    texts: IndexTexts,
    *,
    alone: bool,
) -> Measured:
    given = hits[: len(answer.citations)]
    words = [comparable(hit.passage.content) for hit in given]
    evidence = Evidence(
        indexed=texts.holds(question),
        given=_given(question, given),
        in_passages=not answer.abstained and stands_in(_whole_words(answer), question.question, words),
    )
    nll, tokens = _gold_loss(system, question, given)
    return Measured(
        said=None if answer.abstained else answer.text,
        confidence=answer.confidence,
        citations=tuple(
            Cited(
                document=one.document,
                version=one.version,
                start=one.start,
                end=one.end,
                text_sha256=text_sha256(one.text),
            )
            for one in answer.citations
        ),
        ranks=tuple(_rank(document, hits) for document in question.documents),
        evidence=evidence,
        nll=nll,
        nll_tokens=tokens,
        retrieve_s=seconds,
        generate_s=answer.latency_s.generate if alone else None,
        answer_rank=_answer_rank(question, hits),
        prompt_tokens=answer.prompt_tokens,
        tokens=answer.tokens,
    )


def _whole_words(answer: CitedAnswer) -> str:
    """An answer without the word that its end cut through: half a name would look invented."""
    whole = answer.text.rsplit(maxsplit=1)[0]
    return whole if answer.finish_reason == "length" else answer.text


def text_sha256(text: str) -> str:
    """Hex SHA-256 of a passage's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _given(question: AskedQuestion, given: Sequence[Hit]) -> bool:
    named, wanted = set(question.documents), Wanted(question.answers)
    if not named <= {hit.passage.document for hit in given}:
        return False
    counting = [hit.passage for hit in given if not named or hit.passage.document in named]
    return any(wanted.stands_in(searchable(passage.content)) for passage in counting)


def _answer_rank(question: AskedQuestion, hits: Sequence[Hit]) -> int:
    """A document in many passages may be found by one that does not state the answer."""
    if not question.answers:
        return -1
    named, wanted = set(question.documents), Wanted(question.answers)
    ranks = (
        rank
        for rank, hit in enumerate(hits, start=1)
        if (not named or hit.passage.document in named) and wanted.stands_in(searchable(hit.passage.content))
    )
    return next(ranks, 0)


def _rank(document: str, hits: Sequence[Hit]) -> int | None:
    return next((rank for rank, hit in enumerate(hits, start=1) if hit.passage.document == document), None)


def _gold_loss(system: RagSystem, question: AskedQuestion, given: Sequence[Hit]) -> tuple[float | None, int]:
    if not question.answers or not gives_likelihoods(system.generator):
        return None, 0
    if not has_room(system.readings(question.question, given), question.answers[0]):
        return None, 0
    loss = system.answer_nll(question.question, given, question.answers[0])
    return loss.mean * loss.tokens, loss.tokens


def require_readable(system: RagSystem, questions: Sequence[AskedQuestion]) -> None:
    """Refuse questions that encoder, reranker or generator cannot read.

    Raises:
        DataError: Naming every one.
    """
    problems, query = [], system.encoders.query
    for question in questions:
        length = query.count(question.question, "query") if system.mode != "lexical" else 0
        if length > query.max_tokens:
            what = f"a question of {length} tokens; the encoder reads {query.max_tokens}"
            problems.append(Problem(where=question.place, what=what, fix="Ask in fewer words."))
        if system.reranker is not None and (excess := system.reranker.excess(question.question)):
            what = f"a question of {excess} tokens more than the reranker reads beside a passage"
            problems.append(Problem(where=question.place, what=what, fix="Ask in fewer words."))
        try:
            system.readings(question.question, [])
        except DataError as error:
            problems += [replace(problem, where=question.place) for problem in error.problems]
    if problems:
        raise DataError(problems)


def _keys(system: RagSystem, questions: Sequence[AskedQuestion], finder: str | None) -> Iterator[str]:
    """What an answer and its scores depend on, as a digest for each question."""
    version = system.index.version
    made = {info.number: info.made for info in system.index.versions()}[version]
    common = [
        CACHE_VERSION, str(system.index.folder.resolve()), version, made, system.encoders.sha256,
        system.identity, system.mode, system.passages, system.max_new_tokens,
    ]  # fmt: skip
    common += [
        *([] if system.hops == 1 else [f"{system.hops} hops"]),
        *([] if system.reranker is None else [f"{system.reranked} reranked", system.reranker.sha256]),
        *([] if finder is None else [finder]),
        *([] if system.measures_confidence else ["no confidence"]),
    ]
    for question in questions:
        yield sha256_json([*common, question.question, question.answers, question.documents])
