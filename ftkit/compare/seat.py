"""A trained system, open, with everything that a measurement may need of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.compare.arms import Arm
from ftkit.pipeline.target import Target
from ftkit.rag.answering import RagSystem
from ftkit.rag.cited import CitedAnswer
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.index import Index
from ftkit.rag.measuring import DEPTH, Finder
from ftkit.rag.mining import gold_passages
from ftkit.rag.opening import open_encoders
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.run import INDEX
from ftkit.rag.settings import Mode
from ftkit.recipe import CompareSpec

TOGETHER = 8
MODES: dict[str, Mode] = {"lexical": "lexical", "hybrid": "hybrid"}


class NoPassages:
    """Asks without any."""

    name = "none"

    def __call__(self, question: AskedQuestion, count: int) -> list[Hit]:  # noqa: ARG002
        """None."""
        return []


class RightPassages:
    """Those that hold the answer: what a retriever without fault would find.

    Args:
        system: Its search gives what is shown with a question that no document answers.
    """

    name = "oracle"

    def __init__(self, system: RagSystem) -> None:
        self._system = system

    def __call__(self, question: AskedQuestion, count: int) -> list[Hit]:
        """Of each document that the answer needs, the passage that states it."""
        if not question.answers:
            return self._system.retrieve(question.question, count)
        passages = gold_passages(self._system.index, question)
        return [Hit(passage=one, score=1.0, ranks={"oracle": rank}) for rank, one in enumerate(passages, 1)][:count]


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """What systems share that train no retriever.

    Attributes:
        index: By the encoders as they come.
        encoders: They.
    """

    index: Index
    encoders: EncoderPair


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One system with one seed, ready.

    Attributes:
        arm: What it is.
        system: Index, encoders and generator; a system without retrieval has the index that all share.
        finder: Gives its passages; None for the system's own search.
        run: Of its training; None where nothing was trained.
    """

    arm: Arm
    system: RagSystem
    finder: Finder | None
    run: Path | None

    @property
    def retrieves(self) -> bool:
        """Whether it is given passages at all."""
        return not isinstance(self.finder, NoPassages)

    def on(self, system: RagSystem) -> Seat:
        """The same with another index or generator."""
        finder = RightPassages(system) if isinstance(self.finder, RightPassages) else self.finder
        return replace(self, system=system, finder=finder)

    def hits(self, asked: AskedQuestion) -> list[Hit]:
        """The passages that it is given with a question."""
        if self.finder is not None:
            return self.finder(asked, self.system.passages)
        return self.system.retrieve(asked.question, max(DEPTH, self.system.passages))[: self.system.passages]

    def answers(self, asked: Sequence[AskedQuestion]) -> list[CitedAnswer]:
        """Its answers, in batches."""
        return self.read([(one.question, self.hits(one)) for one in asked])

    def read(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[CitedAnswer]:
        """Its answers from passages that are given, in batches."""
        answers: list[CitedAnswer] = []
        for start in range(0, len(found), TOGETHER):
            answers += self.system.read_together(found[start : start + TOGETHER])
        return answers


def seat_of(spec: CompareSpec, arm: Arm, target: Target, shared: Untrained, run: Path | None) -> Seat:
    """Open a system.

    Args:
        spec: Resolved.
        arm: The system.
        target: Its generator.
        shared: For systems whose retriever is as it came.
        run: Of its training, where there was one.
    """
    own = run is not None and {"retriever", "joint"} & set(arm.system.stages)
    index = Index(run / INDEX) if own and run is not None else shared.index
    system = RagSystem(
        index=index,
        encoders=open_encoders(index.folder) if own else shared.encoders,
        generator=target,
        mode=MODES.get(arm.system.retrieval, "dense"),
        passages=arm.system.passages or spec.reader.passages,
        max_new_tokens=spec.answer.max_new_tokens,
        hops=arm.system.hops or spec.answer.hops,
    )
    return Seat(arm=arm, system=system, finder=_finder(arm, system), run=run)


def _finder(arm: Arm, system: RagSystem) -> Finder | None:
    if arm.system.retrieval == "none":
        return NoPassages()
    return RightPassages(system) if arm.system.retrieval == "oracle" else None
