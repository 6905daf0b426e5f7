"""What a world consists of: subjects, and the documents, facts, questions and edits that follow from them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

from ftkit.rag.world.draw import number_of
from ftkit.rag.world.kinds import KINDS, MAX_PARAPHRASES
from ftkit.rag.world.wording import Kind

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
TRAIN_PERCENT, DEV_PERCENT = 70, 10
EditKind = Literal["change", "addition", "removal"]
Role = Literal["subject", "distractor", "noise"]


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """What a world is made from; two worlds with equal settings are equal.

    Attributes:
        subjects: How many subjects have questions.
        seed: Another one makes another world.
        paraphrases: Wordings of each question.
        distractors: Share of the subjects that have a document about something with a similar name beside theirs.
        two_hop: Share of the possible questions of two hops that are asked.
        unanswerable: Share of the subjects that are asked for something that their document leaves out.
        noise: Documents that no question is about, as a share of the subjects.
    """

    subjects: int
    seed: int
    paraphrases: int
    distractors: float
    two_hop: float
    unanswerable: float
    noise: float

    def __post_init__(self) -> None:
        if self.subjects < 1:
            raise ValueError(f"subjects is {self.subjects}; a world needs at least 1")
        if not 1 <= self.paraphrases <= MAX_PARAPHRASES:
            raise ValueError(f"paraphrases is {self.paraphrases}; each question has 1 to {MAX_PARAPHRASES} wordings")
        for name in ("distractors", "two_hop", "unanswerable", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")


class Value(NamedTuple):
    """What a subject's document states for one relation, and since when (ISO date)."""

    text: str
    date: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One thing of the world, with everything that its document is made from.

    Attributes:
        name: Unique, and in no other name.
        kind: A key of `KINDS`.
        role: What its document is there for. Questions are about subjects alone.
        since: ISO date of its first document.
        date: ISO date of its present document.
        values: What the document states, by relation.
        twin: Of a distractor, the subject that it can be mistaken for.
        gone: ISO date since when the document is gone; empty while it stands.
    """

    name: str
    kind: str
    role: Role
    since: str
    date: str
    values: Mapping[str, Value]
    twin: str = ""
    gone: str = ""

    @property
    def wording(self) -> Kind:
        """How its kind is spoken of."""
        return KINDS[self.kind]

    @property
    def mention(self) -> str:
        """The name as it stands within a sentence."""
        return self.wording.article + self.name

    @property
    def document(self) -> str:
        """Id of its document: the name of its file, as an index of the folder calls it."""
        return f"{self.key}.md"

    @property
    def key(self) -> str:
        """The name as a part of ids."""
        return self.name.lower().replace(" ", "-")

    @property
    def split(self) -> Split:
        """Where its questions belong, by its name alone: the same in a larger world and after edits."""
        percent = number_of("split", self.name) % 100
        if percent < TRAIN_PERCENT:
            return "train"
        return "dev" if percent < TRAIN_PERCENT + DEV_PERCENT else "test"

    def fact(self, relation: str) -> str:
        """Id of what is, or could be, said of it."""
        return f"{self.key}.{relation}"


class Metadata(TypedDict):
    """What is known of a document beside its text."""

    title: str
    date: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One page in Markdown. Metadata: the title, and the ISO date of the page."""

    id: str
    text: str
    metadata: Metadata
    role: Role


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One statement and where it stands.

    Attributes:
        id: Document and relation.
        subject: Name of what it is about.
        relation: A relation of the subject's kind.
        value: As it stands in the text.
        date: ISO date since when the document says so.
        document: Id of the one document that states it.
        start: First character of the value in the document's text.
        end: Where it ends: ``text[start:end] == value``.
    """

    id: str
    subject: str
    relation: str
    value: str
    date: str
    document: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question, its answer, and the documents that the answer needs.

    Attributes:
        id: Of the wording; it stays while the answer changes.
        question: The text.
        answers: The one right answer; empty where no document gives it.
        document: Id of the document that states the answer; None without an answer.
        documents: Ids of all documents that are needed, in the order of the hops.
        fact: Id of the fact that is asked for; without an answer, of the one that is missing.
        facts: Ids of all facts that are needed, in the order of the hops.
        hops: 1, or 2 where the question describes its subject by another one.
        bridge: With two hops, the subject that is described and not named; else None.
        as_of: ISO date since when this is the answer.
        split: By subject: all that a question needs belongs to one split.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    document: str | None
    documents: tuple[str, ...]
    fact: str
    facts: tuple[str, ...]
    hops: int
    bridge: str | None
    as_of: str
    split: Split


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of the world.

    Attributes:
        kind: A value changes, a subject with its document is added, or a document is removed.
        fact: Id of the fact whose value changes; None otherwise.
        old: The value before; None otherwise.
        new: The value after; None otherwise.
        document: Id of the document that changes, comes or goes.
        text: Its text from then on; None once removed.
        date: ISO date of the change, later than the document before.
        questions: Ids of the questions whose answer or evidence changes, or that are new.
        before: The subject before; None where it is added.
        after: The subject from then on.
    """

    kind: EditKind
    fact: str | None = None
    old: str | None = None
    new: str | None = None
    document: str
    text: str | None
    date: str
    questions: tuple[str, ...]
    before: Subject | None
    after: Subject


def days_after(date: str, days: int) -> str:
    """An ISO date some days later."""
    return (datetime.date.fromisoformat(date) + datetime.timedelta(days=days)).isoformat()
