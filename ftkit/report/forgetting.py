"""The part of the page about what tuning cost elsewhere."""

from __future__ import annotations

from ftkit.report.markup import Markup, note, section, table
from ftkit.report.numbers import NONE, judgement, pick, pick_number
from ftkit.report.read import RunFiles

# Figure, what it says, whether lower is better, how it is written.
FIGURES = (
    ("bits_per_byte", "bits per byte of general text", True, "{:.3f}"),
    ("choice_accuracy", "questions answered right by choice", False, "{:.1%}"),
    ("choice_likelihood", "probability of the right choice", False, "{:.3f}"),
    ("end_accuracy", "texts ended right", False, "{:.1%}"),
    ("end_nll", "nats a token of the right ends", True, "{:.3f}"),
)


def forgetting(run: RunFiles) -> Markup | None:
    """A table before and after; None where it was not measured."""
    if not isinstance(pick(run.result, "forgetting"), dict):
        return None
    rows = []
    for key, words, lower, form in FIGURES:
        before = pick_number(run.result, "forgetting", "before", key)
        after = pick_number(run.result, "forgetting", "after", key)
        if before is not None and after is not None:
            verdict = judgement(before, after, lower_is_better=lower)
            rows.append([words, form.format(before), form.format(after), verdict])
    moved = pick_number(run.result, "forgetting", "kl_to_base")
    words = "What the base knew of other things, and what is left of it after training."
    if moved is not None:
        words += (
            f" The distributions of the next token moved by {moved:.3f} nats a token on average (KL from the base): "
            "0 is no change, gains and losses count alike."
        )
    return section(
        "forgetting",
        "What was lost elsewhere",
        table(["figure", "before", "after", ""], rows, numeric=(1, 2)) if rows else note(NONE),
        note(words),
    )
