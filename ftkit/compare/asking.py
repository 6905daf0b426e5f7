"""A system of a comparison, ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ftkit.compare.arms import Arm
from ftkit.pipeline.target import Target
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.evaluation import Evaluation, evaluate_rag
from ftkit.rag.index import Index
from ftkit.rag.measuring import Finder
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


def ask_all(
    spec: CompareSpec,
    arm: Arm,
    target: Target,
    questions: tuple[AskedQuestion, ...],
    shared: Untrained,
    run: Path | None,
    cache: Path,
) -> Evaluation:
    """Ask a system every question.

    Args:
        spec: Resolved.
        arm: The system.
        target: Its generator.
        questions: Of the test.
        shared: For systems whose retriever is as it came.
        run: Of its training, where there was one.
        cache: Of its answers; see `ftkit.rag.measuring.measure`.
    """
    retrieval = arm.system.retrieval
    own = run is not None and {"retriever", "joint"} & set(arm.system.stages)
    index = Index(run / INDEX) if own and run is not None else shared.index
    encoders = open_encoders(index.folder) if own else shared.encoders
    system = RagSystem(
        index=index,
        encoders=encoders,
        generator=target,
        mode=MODES.get(retrieval, "dense"),
        passages=arm.system.passages or spec.reader.passages,
        max_new_tokens=spec.answer.max_new_tokens,
        hops=spec.answer.hops,
    )
    finder: Finder | None = None
    if retrieval == "none":
        finder = NoPassages()
    elif retrieval == "oracle":
        finder = RightPassages(system)
    return evaluate_rag(
        system, questions, cache=cache, generator=arm.name, finder=finder, confidences=False, together=TOGETHER
    )
