"""A world as a whole: all its documents, facts and questions, and what it becomes by edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftkit.rag.world.build import draw_subjects
from ftkit.rag.world.documents import render
from ftkit.rag.world.edits import State, add_subjects, apply_edits, change_values, remove_documents
from ftkit.rag.world.parts import SPLITS, Document, Edit, Fact, Question, Subject, WorldSettings
from ftkit.rag.world.questions import questions_of
from ftkit.rag.world.write import write_world


@dataclass(frozen=True, kw_only=True)
class ClosedWorld:
    """Documents about things that do not exist, and questions that nothing but the documents answers.

    Everything follows from the settings and the subjects, so documents and questions cannot contradict each other.

    Attributes:
        settings: What the world was made from.
        subjects: Everything that has, or had, a document.
    """

    settings: WorldSettings
    subjects: tuple[Subject, ...]

    @cached_property
    def _rendered(self) -> tuple[tuple[Document, tuple[Fact, ...]], ...]:
        return tuple(render(subject, self.settings.seed) for subject in self.subjects if not subject.gone)

    @cached_property
    def documents(self) -> tuple[Document, ...]:
        """All documents that stand."""
        return tuple(document for document, _ in self._rendered)

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """All statements of all documents, those of distractors too."""
        return tuple(fact for _, facts in self._rendered for fact in facts)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """All questions, those without an answer too."""
        known = {subject.name: subject for subject in self.subjects}
        return tuple(
            question for subject in self.subjects for question in questions_of(subject, known, self.settings)
        )

    def edit(self, n: int, seed: int = 0) -> list[Edit]:
        """Changes of ``n`` facts, to be applied in this order.

        Args:
            n: How many; each is about another subject.
            seed: Another one changes other facts.

        Raises:
            ValueError: ``n`` is more than there are subjects with a fact that can change.
        """
        return list(change_values(State(self.subjects, self.settings), n, seed))

    def add(self, n: int, seed: int = 0) -> list[Edit]:
        """Additions of ``n`` new subjects with their documents and questions, to be applied in this order."""
        return list(add_subjects(State(self.subjects, self.settings), n, seed))

    def remove(self, n: int, seed: int = 0) -> list[Edit]:
        """Removals of ``n`` documents, whose questions have no answer then, to be applied in this order.

        Raises:
            ValueError: ``n`` is more than there are documents of subjects.
        """
        return list(remove_documents(State(self.subjects, self.settings), n, seed))

    def apply(self, edits: Iterable[Edit]) -> ClosedWorld:
        """The world after edits; this one stays as it is.

        Raises:
            ValueError: An edit was made for another state of this world.
        """
        return ClosedWorld(settings=self.settings, subjects=apply_edits(self.subjects, edits))

    def write(self, folder: Path) -> None:
        """Write documents, facts, questions and a summary; see `ftkit.rag.world.write`.

        Raises:
            OutputError: The folder exists and is not empty.
        """
        write_world(folder, self.documents, self.facts, self.questions, world_summary(self))


def closed_world(
    *,
    subjects: int,
    seed: int = 0,
    paraphrases: int = 3,
    distractors: float = 0.5,
    two_hop: float = 0.25,
    unanswerable: float = 0.3,
    noise: float = 0.2,
) -> ClosedWorld:
    """Make a world; the same arguments give the same one on every machine.

    Args:
        subjects: How many subjects have questions.
        seed: Another one makes another world.
        paraphrases: Wordings of each question, 1 to 4.
        distractors: Share of the subjects that have a document about something with a similar name beside theirs.
        two_hop: Share of the possible questions of two hops that are asked.
        unanswerable: Share of the subjects that are asked for something that their document leaves out.
        noise: Documents that no question is about, as a share of the subjects.

    Raises:
        ValueError: A number is out of its range.
    """
    settings = WorldSettings(
        subjects=subjects, seed=seed, paraphrases=paraphrases, distractors=distractors, two_hop=two_hop,
        unanswerable=unanswerable, noise=noise,
    )  # fmt: skip
    return ClosedWorld(settings=settings, subjects=tuple(draw_subjects(settings)))


def world_summary(world: ClosedWorld) -> dict[str, Any]:
    """Settings and counts of a world, for people and for ``world.json``."""
    questions = world.questions
    roles = Counter(document.role for document in world.documents)
    kinds = Counter(subject.kind for subject in world.subjects if subject.role == "subject" and not subject.gone)
    splits = Counter(question.split for question in questions)
    return {
        "settings": asdict(world.settings),
        "documents": {"all": len(world.documents), **{role: roles[role] for role in sorted(roles)}},
        "subjects": {kind: kinds[kind] for kind in sorted(kinds)},
        "facts": {
            "all": len(world.facts),
            "asked": len({question.fact for question in questions if question.answers}),
        },
        "questions": {
            "all": len(questions),
            **{split: splits[split] for split in SPLITS},
            "one_hop": sum(question.hops == 1 for question in questions),
            "two_hops": sum(question.hops == 2 for question in questions),
            "unanswerable": sum(not question.answers for question in questions),
        },
    }
