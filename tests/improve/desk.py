"""A task that a tiny model learns in seconds: which desk a customer's complaint belongs to.

The thing that is complained of decides the desk, and the number and the words around it are noise. So what was learnt
of some complaints holds for others, and how well a model has learnt is read off questions that it never saw.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from ftkit.evaluate.generation import Answer
from ftkit.recipe import FullRecipe, ImproveSpec
from ftkit.serve.journal import Journal, Remark, Said

DESKS = {"lamp": "light", "sofa": "seat", "oven": "heat", "fridge": "cold", "radio": "sound", "shelf": "wood"}
WORDS = ("is broken", "came late", "was lost", "does not fit")
TRAIN = {"learning_rate": 1e-2, "batch_size": 16, "max_steps": 110, "epochs": 1000}
TUNE = {"recipe": "full", "train": TRAIN, "data": {"near_duplicates": False}}


def complaint(number: int) -> tuple[str, str]:
    """Question and right answer; every number has its own."""
    draw = random.Random(number)
    thing = draw.choice(list(DESKS))
    return f"My {thing} of order {number} {draw.choice(WORDS)}", DESKS[thing]


def wrong(number: int) -> str:
    """Another desk than the right one."""
    return random.Random(-number - 1).choice([desk for desk in DESKS.values() if desk != complaint(number)[1]])


def write_test(path: Path, numbers: range) -> Path:
    rows = [{"question": complaint(one)[0], "answers": [complaint(one)[1]]} for one in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_clean(path: Path, numbers: range) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in map(complaint, numbers)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def exchange(
    journal: Journal, name: str, asked: Any, answer: str, *, consent: bool = True, reason: Any = "stop"
) -> None:
    """What a server writes after an answer."""
    messages = ({"role": "user", "content": asked},) if isinstance(asked, str) else tuple(asked)
    said = Said(name="desk", consent=consent, messages=messages, tools=())
    journal.record(name, said, Answer(text=answer, tokens=1, finish_reason=reason, wall_s=0.0), {})


def rate(journal: Journal, name: str, rating: Any = "up", correction: str | None = None) -> None:
    journal.remark(Remark(id=name, rating=rating, correction=correction, withdrawn=False))


def withdraw(journal: Journal, name: str) -> None:
    journal.remark(Remark(id=name, rating=None, correction=None, withdrawn=True))


def open_journal(path: Path) -> Journal:
    return Journal(path, {"desk": "0" * 64})


def plant(path: Path, numbers: range, *, share_wrong: float = 0.0) -> Path:
    """A log of answered complaints: half were right and rated so, half were wrong and corrected.

    Of the share that is wrong, some are wrong answers rated right, and some are right answers with wrong corrections.
    """
    journal = open_journal(path)
    draw = random.Random(7)
    for number in numbers:
        asked, right = complaint(number)
        name, misled, corrected = f"chatcmpl-{number}", draw.random() < share_wrong, number % 2 == 0
        answer = right if misled == corrected else wrong(number)
        exchange(journal, name, asked, answer)
        taught = wrong(number) if misled else right
        rate(journal, name, "down", taught) if corrected else rate(journal, name, "up")
    journal.close()
    return path


def tuned(base: Path, folder: Path, *, steps: int) -> FullRecipe:
    """The recipe of what is in service at the beginning: right data, few steps."""
    return FullRecipe.model_validate({
        "model": str(base),
        "data": {
            "train": str(write_clean(folder / "former.jsonl", range(10_000, 10_300))), "validation": None,
            "near_duplicates": False,
        },
        "train": TRAIN | {"max_steps": steps}, "evaluate": {"samples": 0, "metrics": ()}, "export": ("merged",),
        "output": str(folder / "current"),
    })  # fmt: skip


def make_spec(log: Path, current: Path | str, test: Path, output: Path, **changes: Any) -> ImproveSpec:
    values = {
        "log": str(log), "current": str(current), "test": str(test), "output": str(output), "tune": TUNE,
    }  # fmt: skip
    return ImproveSpec.model_validate(values | changes)
