"""Questions held to the documents that they are about, before anything is embedded or trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from ftkit.errors import FtkitError, Interrupted, Problem, RecipeError
from ftkit.nearest import nearest
from ftkit.rag.blame import Wanted, searchable
from ftkit.rag.chunking import chunk
from ftkit.rag.document import Document
from ftkit.rag.encoder import Encoder
from ftkit.rag.passage import content_of
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.settings import IndexSettings

Given = TypeVar("Given")
MOST_LISTED = 20  # places in a report; their number is always told
MOST_NAMES_COMPARED = 1000  # the nearest known name takes milliseconds to find


class Faults:
    """Errors of several parts that are looked at one after the other, so that one pass tells all of them."""

    def __init__(self) -> None:
        self._found: list[FtkitError] = []

    def of(self, part: Callable[[], Given]) -> Given | None:
        """What a part gives, or None after keeping its error."""
        try:
            return part()
        except Interrupted:
            raise
        except FtkitError as error:
            self._found.append(error)
            return None

    def add(self, error: FtkitError) -> None:
        """Keep an error."""
        self._found.append(error)

    def raise_any(self) -> None:
        """Raise all of them as one.

        Raises:
            FtkitError: Of the kind of the first, with the problems of all.
        """
        if self._found:
            every = dict.fromkeys(problem for error in self._found for problem in error.problems)
            raise type(self._found[0])(list(every))


@dataclass(frozen=True)
class Passages:
    """Every passage of a corpus as its index will have them, without vectors.

    Attributes:
        of: Contents by the document's id, in order.
    """

    of: dict[str, list[str]]

    @cached_property
    def distinct(self) -> list[str]:
        """Each content once."""
        return list(dict.fromkeys(content for contents in self.of.values() for content in contents))

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.of.values()))

    @cached_property
    def searched(self) -> list[str]:
        """The distinct ones as answers are looked for in them."""
        return [searchable(content) for content in self.distinct]

    @cached_property
    def _everything(self) -> str:
        return "\n".join(self.searched)  # no answer reaches from one line into another

    def state(self, asked: AskedQuestion) -> bool:
        """Whether an answer stands in any of them."""
        return Wanted(asked.answers).stands_in(self._everything)

    def stating(self, asked: AskedQuestion) -> dict[str, list[str]]:
        """Of each document that a question names and the corpus has, the passages that state an answer."""
        wanted = Wanted(asked.answers)
        return {
            name: [content for content in self.of[name] if wanted.stands_in(searchable(content))]
            for name in asked.documents
            if name in self.of
        }


def cut_corpus(documents: Sequence[Document], encoder: Encoder, settings: IndexSettings) -> Passages:
    """Cut documents as the index does.

    Raises:
        RecipeError: Passages are so short that nothing fits.
    """
    found: dict[str, list[str]] = {}
    for document in documents:
        try:
            chunks = chunk(
                document, limit=settings.passage_tokens, measure=encoder.count, overlap=settings.overlap_tokens
            )
        except ValueError as error:
            raise RecipeError(
                f"corpus.passage_tokens: {settings.passage_tokens} is too short for {document.id}: {error}",
                fix="Leave it out: the encoder's own length is taken.",
            ) from None
        found[document.id] = [content_of(one.context, document.text[one.start : one.end]) for one in chunks]
    return Passages(found)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One side of a set of questions.

    Attributes:
        asked: All of them.
        teaching: Those that a reader can learn from, as far as that is known without searching.
        unknown: Question and id of each document that is named and is not in the corpus.
        lost: Questions of which no answer stands in a passage of their documents; where they name none, in any.
        needy: Questions that need more passages than the reader is given.
    """

    asked: tuple[AskedQuestion, ...]
    teaching: tuple[AskedQuestion, ...]
    unknown: tuple[tuple[AskedQuestion, str], ...]
    lost: tuple[AskedQuestion, ...]
    needy: tuple[AskedQuestion, ...]

    @property
    def answerable(self) -> tuple[AskedQuestion, ...]:
        """Those with an answer."""
        return tuple(one for one in self.asked if one.answers)

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the first places of what is wrong."""
        named = sum(bool(one.documents) for one in self.asked)
        return {
            "questions": len(self.asked),
            "answerable": len(self.answerable),
            "unanswerable": len(self.asked) - len(self.answerable),
            "naming_documents": named,
            "teaching_the_reader": len(self.teaching),
            "unknown_documents": len(self.unknown),
            "unknown_documents_at": [f"{one.place}: {name}" for one, name in self.unknown[:MOST_LISTED]],
            "answer_in_no_passage": len(self.lost),
            "answer_in_no_passage_at": [one.place for one in self.lost[:MOST_LISTED]],
            "needing_more_passages": len(self.needy),
        }


def audit(asked: Sequence[AskedQuestion], passages: Passages, *, given: int) -> Audit:
    """Hold questions to the passages.

    Args:
        asked: Of one side.
        passages: Of the corpus.
        given: Passages that the reader is given.
    """
    unknown = [(one, name) for one in asked for name in one.documents if name not in passages.of]
    teaching, lost, needy = [], [], []
    for one in asked:
        if not one.answers:
            teaching.append(one)
            continue
        stating = passages.stating(one)
        stands = any(stating.values()) if one.documents else passages.state(one)
        if not stands and (stating or not one.documents):
            lost.append(one)
        if len(stating) > given:
            needy.append(one)
        elif stating or (stands and not one.documents):
            # With its document known a question is trained on even where no passage states the answer.
            teaching.append(one)
    return Audit(
        asked=tuple(asked), teaching=tuple(teaching), unknown=tuple(unknown), lost=tuple(lost), needy=tuple(needy)
    )


def audit_warnings(name: str, found: Audit, passages: Passages) -> list[str]:
    """What is wrong with one side and does not stop a run."""
    warnings = []
    if found.unknown:
        first, document = found.unknown[0]
        near = nearest(document, passages.of) if len(passages.of) <= MOST_NAMES_COMPARED else None
        warnings.append(
            f"{len(found.unknown)} documents that {name} questions name are not in the corpus, such as {document!r} "
            f"({first.place}){f'; did you mean {near!r}?' if near else ''}"
        )
    if found.lost:
        warnings.append(
            f"{len(found.lost)} {name} questions have answers that stand in no passage of their documents, such as "
            f"{found.lost[0].place}; nobody can read them there"
        )
    if found.needy:
        warnings.append(
            f"{len(found.needy)} {name} questions need more passages than the reader is given, and are left out, "
            f"such as {found.needy[0].place}; raise reader.passages"
        )
    return warnings


def too_long(asked: Sequence[AskedQuestion], encoder: Encoder) -> list[Problem]:
    """Questions that are longer than the encoder reads; training refuses them."""
    counted = [(one, encoder.count(one.question, "query")) for one in asked]
    return [
        Problem(
            where=one.place,
            what=f"a question of {tokens} tokens; {encoder.found.portable_name} reads {encoder.max_tokens}",
            fix="Ask in fewer words, or use an encoder that reads more.",
        )
        for one, tokens in counted
        if tokens > encoder.max_tokens
    ]
