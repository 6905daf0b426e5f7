"""A tiny corpus with questions, for whole runs on tiny models."""

from __future__ import annotations

import json

THINGS = ["rake", "saw", "axe", "drill", "vice", "lamp", "rope", "pail", "sieve", "file", "plane", "mop"]
COLOURS = ["red", "blue", "green", "black", "white", "brown"]


def colour(number):
    return COLOURS[number % 6] + str(number)


def write_shed(folder):
    """Twelve documents of one sentence, twelve questions with the document named, three without an answer."""
    docs = folder / "docs"
    docs.mkdir(parents=True)
    rows = []
    for number, thing in enumerate(THINGS):
        (docs / f"{thing}.txt").write_text(f"The {thing} is {colour(number)}.")
        rows.append({"question": f"What is the {thing}?", "answers": [colour(number)], "document": f"{thing}.txt"})
    rows += [{"question": f"What is the {name}?", "answers": []} for name in ("cat", "dog", "sun")]
    for name, chosen in (("train", rows[:10] + rows[12:]), ("dev", rows[10:12])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


def shed_recipe(folder, model, encoder, **changes):
    """Values of a recipe over it."""
    values = {
        "recipe": "rag",
        "model": str(model),
        "corpus": {"sources": (str(folder / "docs"),), "passage_tokens": 60},
        "data": {"train": str(folder / "train.jsonl"), "validation": str(folder / "dev.jsonl")},
        "generator": {"recipe": "lora", "method": {"rank": 4}},
        "retriever": {
            "encoder": str(encoder), "learning_rate": 1e-3, "epochs": 1.0, "candidates": 4, "scored": 3,
            "lexical_candidates": 1,
        },
        "joint": {"rounds": 2, "passages": 3},
        "train": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 2, "checkpoint_every": 1},
        "answer": {"max_new_tokens": 8},
    }  # fmt: skip
    return values | changes
