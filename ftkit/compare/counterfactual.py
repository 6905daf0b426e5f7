"""Passages that say something else than the documents do: an answer that follows them was read, not remembered.

Source:
    Longpre et al. 2021, Entity-Based Knowledge Conflicts in Question Answering (arXiv:2109.05052).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ftkit.compare.foils import foil_for, replaced, spread, states
from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, mean_of
from ftkit.rag.blame import is_right
from ftkit.rag.figures import cluster_of
from ftkit.rag.mining import gold_passages
from ftkit.rag.passage import Hit
from ftkit.rag.questions import AskedQuestion


def measure_counterfactuals(seat: Seat, questions: Sequence[AskedQuestion], count: int) -> Sheet | None:
    """Show some questions with their right passage, in which another answer stands.

    Returns:
        ``follows_passage``, share of the answers that say what the passage says; ``follows_memory``, what the
        documents say. None for a system that is given no passages.
    """
    if not seat.retrieves:
        return None
    altered = _altered(seat, questions, count)
    found = [(one.question, [hit]) for one, hit, _ in altered]
    said = [None if answer.abstained else answer.text for answer in seat.read(found)]
    return Sheet(
        units=tuple(one.id for one, _, _ in altered),
        clusters=tuple(cluster_of(one) for one, _, _ in altered),
        figures={
            "follows_passage": mean_of(
                [is_right(text, [foil]) for text, (_, _, foil) in zip(said, altered, strict=True)]
            ),
            "follows_memory": mean_of(
                [text is not None and is_right(text, one.answers)
                 for text, (one, _, _) in zip(said, altered, strict=True)]
            ),
        },
    )  # fmt: skip


def _altered(seat: Seat, questions: Sequence[AskedQuestion], count: int) -> list[tuple[AskedQuestion, Hit, str]]:
    """Questions of one document whose answer stands in it word for word, the passage with another in it, and that."""
    known = [one for one in questions if one.answers and len(one.documents) == 1]
    found = []
    for one in spread(known, len(known)):
        for passage in gold_passages(seat.system.index, one)[:1]:
            foil = foil_for(one, known, passage.content)
            text = None if foil is None else replaced(passage.text, one.answers[0], foil)
            if foil is not None and text is not None:
                changed = replace(passage, text=text)
                if states(changed.content, one):
                    continue  # another form of the right answer is left in it
                found.append((one, Hit(passage=changed, score=1.0, ranks={"altered": 1}), foil))
    chosen = {one.id for one in spread([one for one, _, _ in found], count)}
    return [each for each in found if each[0].id in chosen]
