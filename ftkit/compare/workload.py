"""What systems are compared on: one corpus, questions to learn from, and questions that nothing learns from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.errors import DataError
from ftkit.files import sha256_json, write_text
from ftkit.notices import log
from ftkit.rag.corpus import Corpus, read_documents
from ftkit.rag.figures import cluster_of
from ftkit.rag.questions import AskedQuestion, read_questions, split_questions
from ftkit.recipe import CompareSpec

FEWEST_TEST = 10


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One corpus and three sets of questions.

    Attributes:
        corpus: All documents.
        train: To learn from.
        held: To choose by.
        test: To be measured on.
    """

    corpus: Corpus
    train: tuple[AskedQuestion, ...]
    held: tuple[AskedQuestion, ...]
    test: tuple[AskedQuestion, ...]

    @property
    def sha256(self) -> str:
        """Of all that training may see."""
        return sha256_json([self.corpus_sha256, _digest(self.train), _digest(self.held)])

    @property
    def test_sha256(self) -> str:
        """Of the test questions."""
        return _digest(self.test)

    @property
    def corpus_sha256(self) -> str:
        """Of the documents."""
        return sha256_json(sorted([document.id, document.sha256] for document in self.corpus.documents))

    def drawn(self, train: int | None, test: int | None) -> Workload:
        """With at most so many questions; fewer are always some of more.

        Test questions come from as many documents as there are: what is tested is resampled by document, and ten
        questions about one document tell little more than one.
        """
        return replace(self, train=_drawn(self.train, train), test=_drawn(self.test, test, spread=True))

    def write(self, folder: Path) -> None:
        """Store the questions as files that recipes name: train.jsonl, validation.jsonl, test.jsonl."""
        for name, asked in (("train", self.train), ("validation", self.held), ("test", self.test)):
            write_text(folder / f"{name}.jsonl", "".join(_line(one) for one in asked))


def read_workload(spec: CompareSpec) -> Workload:
    """Read documents and questions.

    Raises:
        DataError: Naming what cannot be read, and test questions that are trained on.
    """
    train, test = read_questions(spec.data.train), read_questions(spec.data.test)
    validation = spec.data.validation
    if isinstance(validation, str):
        held = read_questions(validation)
    else:
        train, held = split_questions(train, validation or 0.0)
    seen = {_plain(one.question): one.place for one in (*train, *held)}
    if leaks := [f"{one.place} ({seen[_plain(one.question)]})" for one in test if _plain(one.question) in seen]:
        raise DataError(
            f"{len(leaks)} test questions are also in the training questions: {'; '.join(leaks[:5])}",
            fix="Take them out of one of the two files: measured on what was trained on, every figure flatters.",
        )
    if len(test) < FEWEST_TEST:
        raise DataError(
            f"{spec.data.test}: {len(test)} questions tell nothing",
            fix=f"Give {FEWEST_TEST} at least; hundreds tell more.",
        )
    if not train:
        raise DataError(f"{spec.data.train}: no question is left to train on", fix="Lower data.validation.")
    corpus = read_documents(spec.corpus.sources, on_fault="skip" if spec.corpus.skip_unreadable else "error")
    for fault in corpus.faults:
        log.warning("skipped: %s", fault)
    known = {document.id for document in corpus.documents}
    if strangers := sorted({name for one in (*train, *test) for name in one.documents} - known):
        log.warning(
            "%d documents that questions name are not in the corpus, such as %s", len(strangers), strangers[0]
        )
    found = Workload(corpus=corpus, train=tuple(train), held=tuple(held), test=tuple(test))
    return found.drawn(spec.data.max_train, spec.data.max_test)


def _plain(question: str) -> str:
    return " ".join(question.casefold().split())


def _drawn(asked: Sequence[AskedQuestion], most: int | None, *, spread: bool = False) -> tuple[AskedQuestion, ...]:
    if most is None or most >= len(asked):
        return tuple(asked)
    ranked = sorted(asked, key=lambda one: hashlib.sha256(f"{one.id}\n{one.question}".encode()).digest())
    if spread:
        named, bare = ([one for one in ranked if bool(one.documents) == known] for known in (True, False))
        # Each kind keeps its share, however few are drawn.
        shares = [(place / len(kind), one) for kind in (_spread(named), bare) for place, one in enumerate(kind, 1)]
        ranked = [one for _, one in sorted(shares, key=lambda pair: pair[0])]
    chosen = {id(one) for one in ranked[:most]}
    return tuple(one for one in asked if id(one) in chosen)


def _spread(asked: Sequence[AskedQuestion]) -> list[AskedQuestion]:
    """The first question about each document, then the second of each, and so on."""
    before: Counter[str] = Counter()
    turns: list[tuple[int, AskedQuestion]] = []
    for one in asked:
        turns.append((before[cluster_of(one)], one))
        before[cluster_of(one)] += 1
    return [one for _, one in sorted(turns, key=lambda pair: pair[0])]


def _digest(asked: Sequence[AskedQuestion]) -> str:
    return sha256_json([[one.id, one.question, one.answers, one.documents] for one in asked])


def _line(one: AskedQuestion) -> str:
    row = {"id": one.id, "question": one.question, "answers": one.answers, "documents": one.documents}
    return json.dumps(row, ensure_ascii=False) + "\n"
