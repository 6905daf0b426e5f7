"""Documents change: does the next answer follow, and what does it cost to let it?

With passages an edit is a new version of the document in the index. A memory forgets what stands there no more, and
answers that were right before, and remembers the new passages. A generator that learnt documents by heart is
trained anew, from the base, with the edited documents and with each edited fact as a question and its new answer:
that is generous to it, as nobody has these questions when a document changes.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftkit.compare.combining import with_new_memory
from ftkit.compare.foils import foil_for, replaced, spread, states
from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, mean_of
from ftkit.compare.variants import Variant
from ftkit.compare.wordings import worded
from ftkit.compare.work import Cost
from ftkit.compare.workload import Workload
from ftkit.errors import DataError
from ftkit.hybrid.nearest import NearestSystem
from ftkit.rag.answering import RagSystem
from ftkit.rag.blame import is_right
from ftkit.rag.document import Document
from ftkit.rag.exported import PartNames
from ftkit.rag.figures import cluster_of
from ftkit.rag.index import Index
from ftkit.rag.outcomes import Outcome
from ftkit.rag.questions import AskedQuestion
from ftkit.rag.snapshot import copy_index
from ftkit.train.work import matrices_of

Retrain = Callable[[Variant], tuple[RagSystem, Cost]]


@dataclass(frozen=True, kw_only=True)
class FactEdit:
    """One document with another fact in it.

    Attributes:
        asked: The question with its new answer.
        former: Its answers before.
        document: As it is now.
    """

    asked: AskedQuestion
    former: tuple[str, ...]
    document: Document


def draw_fact_edits(workload: Workload, count: int) -> list[FactEdit]:
    """Edits of so many documents, one each; fewer edits are the first of more.

    Raises:
        DataError: Not so many documents state the answer to a question in its very words.
    """
    asked = (*workload.test, *workload.held, *workload.train)
    documents = {one.id: one for one in workload.corpus.documents}
    known = [one for one in asked if one.answers and len(one.documents) == 1 and one.documents[0] in documents]
    found: dict[str, FactEdit] = {}
    for one in sorted(known, key=lambda one: hashlib.sha256(f"edit\n{one.id}\n{one.question}".encode()).digest()):
        document = documents[one.documents[0]]
        if document.id in found or (foil := foil_for(one, known, document.text)) is None:
            continue
        text = replaced(document.text, one.answers[0], foil)
        if text is not None and not states(text, one):
            now = replace(one, answers=(foil,))
            found[document.id] = FactEdit(asked=now, former=one.answers, document=replace(document, text=text))
        if len(found) == count:
            break
    if len(found) < count:
        raise DataError(
            f"measure.updates: {count} documents cannot be edited: {len(found)} state the answer to a question in "
            "its very words, with another answer of its form to put there",
            fix=f"Ask for {len(found)} edits at most.",
        )
    return list(found.values())


def edited(workload: Workload, edits: Sequence[FactEdit]) -> Workload:
    """The workload with the documents as they are now, and with the new facts among the training questions."""
    now = {one.document.id: one.document for one in edits}
    documents = tuple(now.get(one.id, one) for one in workload.corpus.documents)
    # Asked in other words than it is asked in afterwards.
    taught = tuple(
        replace(one.asked, id=f"{one.asked.id} edited", question=worded(one.asked.question)[2]) for one in edits
    )
    asked = {one.asked.question for one in edits}
    train = tuple(_as_now(one, edits) for one in workload.train if one.question not in asked)
    return replace(workload, corpus=replace(workload.corpus, documents=documents), train=(*train, *taught))


def _as_now(asked: AskedQuestion, edits: Sequence[FactEdit]) -> AskedQuestion:
    """A training question with its answer of now, where an edit changed it: no lesson contradicts the documents."""
    for one in edits:
        if one.document.id in asked.documents and asked.answers and is_right(asked.answers[0], one.former):
            return replace(asked, answers=one.asked.answers)
    return asked


def measure_updates(
    seat: Seat,
    workload: Workload,
    edits: Sequence[FactEdit],
    before: Sequence[Outcome],
    untouched: int,
    retrain: Retrain,
) -> Sheet:
    """Bring a system up to date with edits, and ask.

    Args:
        seat: The system, before.
        workload: Before.
        edits: One a document.
        before: Its answers to the test questions.
        untouched: How many of these, that no edit is about, are asked again; the same for every system.
        retrain: Trains a system that learns by heart with other documents.

    Returns:
        With N edits, ``updated_N``: share of the edited facts that are answered as the documents say now;
        ``stale_N``: as they said before; ``unharmed_N``: share of the other questions, of those that were answered
        rightly before, that still are. ``update_s_N`` and ``update_flops_N``: what it took.
    """
    touched = {one.document.id for one in edits}
    right_before = {one.question.id: one.right for one in before}
    asked = [one.question for one in before if one.question.answers and not touched & set(one.question.documents)]
    others = spread(asked, untouched)
    with tempfile.TemporaryDirectory(prefix="ftkit-updates-") as place:
        now, seconds, flops = _up_to_date(seat, workload, edits, retrain, Path(place))
        said = [None if one.abstained else one.text for one in now.answers([*(one.asked for one in edits), *others])]
        now.system.index.close()
    count = len(edits)
    new = [is_right(text, one.asked.answers) for text, one in zip(said[:count], edits, strict=True)]
    old = [
        text is not None and is_right(text, one.former) and not new[at]
        for at, (text, one) in enumerate(zip(said[:count], edits, strict=True))
    ]
    kept = [is_right(text, one.answers) for text, one in zip(said[count:], others, strict=True)]
    about_edits = [*[1.0] * count, *[0.0] * len(others)]
    rest = [*[0.0] * count, *(float(right_before[one.id]) for one in others)]
    figures = {
        f"updated_{count}": mean_of([*new, *kept], about_edits),
        f"stale_{count}": mean_of([*old, *kept], about_edits),
        f"unharmed_{count}": mean_of([*new, *kept], rest),
    }
    return Sheet(
        units=(*(f"edit {one.asked.id}" for one in edits), *(one.id for one in others)),
        clusters=(*(cluster_of(one.asked) for one in edits), *map(cluster_of, others)),
        figures={name: one for name, one in figures.items() if one.denominators.any()},
        counted={f"update_s_{count}": seconds} | ({} if flops is None else {f"update_flops_{count}": flops}),
    )


def _up_to_date(
    seat: Seat, workload: Workload, edits: Sequence[FactEdit], retrain: Retrain, place: Path
) -> tuple[Seat, float, float | None]:
    """The system after the edits, on an index of its own; seconds and operations that it took."""
    system, seconds = seat.system, 0.0
    flops: float | None = 0.0
    if seat.arm.system.learns and not seat.retrieves:
        variant = Variant(name=f"edited-{len(edits)}", workload=edited(workload, edits))
        system, cost = retrain(variant)
        seconds, flops = cost.seconds, cost.flops
    index = copied_index(system.index, place / "index")
    known = {one.content for one in index.all_passages()}
    if seat.retrieves:
        started = time.perf_counter()
        index.add([one.document for one in edits], system.encoders)
        seconds += time.perf_counter() - started
        encoder = system.encoders.document
        new = {one.content for one in index.all_passages()} - known
        flops = (flops or 0.0) + matrices_of(encoder.module).forward(sum(map(encoder.count, new)))
    if isinstance(system, NearestSystem):
        if not seat.retrieves:
            index.add([one.document for one in edits], system.encoders)  # cuts them; nothing is searched in it
        contents = sorted({one.content for one in index.all_passages()} - known)
        started = time.perf_counter()
        stale = [one for one in workload.train if _as_now(one, edits) is not one]
        system = with_new_memory(system, contents, stale, place / "memory")
        seconds += time.perf_counter() - started
        tokens = sum(len(system.generator.tokenizer(text)["input_ids"]) for text in contents)
        flops = (flops or 0.0) + matrices_of(system.generator.model).forward(tokens)
    return seat.on(replace(system, index=index)), seconds, flops


def copied_index(index: Index, folder: Path) -> Index:
    """The same in another folder, so that nothing is written to the one that others search."""
    settings = index.settings
    names = PartNames(encoder=settings.encoder, query_encoder=settings.query_encoder, generator=settings.generator)
    copy_index(index, folder, names)
    return Index(folder)
