"""What a hybrid on disk answers, for whoever judges it; see `ftkit.hybrid.proving`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ftkit.hybrid.kinds import HybridSystem
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.router import RoutedAnswer
from ftkit.hybrid.weights import WeighedSystem
from ftkit.rag.probing import without_text


def answers_of(system: HybridSystem, questions: Sequence[str]) -> list[dict[str, Any]]:
    """What a hybrid answers, exactly enough that a copy of it can be held to it."""
    if isinstance(system, WeighedSystem):
        # Its likelihood of what it says shows another weight or memory where the words are the same.
        system = replace(system, measures_confidence=True)
    found = []
    for question in questions:
        answer = system.ask(question)
        found.append(
            {
                "member": answer.member if isinstance(answer, RoutedAnswer) else None,
                "text": answer.text,
                "abstained": answer.abstained,
                "finish_reason": answer.finish_reason,
                "confidence": answer.confidence,
                "citations": [asdict(without_text(one)) for one in answer.citations],
            }
        )
    return found


def reread(job: dict[str, Any], out: Path) -> None:
    """Open a hybrid as its users will, ask it, and write found.json.

    Args:
        job: ``folder`` of the hybrid, and ``questions``.
        out: Folder to write to.
    """
    answers = answers_of(open_hybrid(job["folder"]), job["questions"])
    (out / "found.json").write_text(json.dumps({"answers": answers}), encoding="utf-8")
