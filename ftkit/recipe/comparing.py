"""What a comparison measures beside the answers to its questions, and what it is asked to settle."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ftkit.recipe.base import ClashError, Section
from ftkit.recipe.sections import PathText

# Of one answer or of one text, so that two systems can be paired on them.
FIGURES = (
    "exact_match",
    "right",
    "f1",
    "rouge_l",
    "nll",
    "recall_at_1",
    "recall_at_5",
    "mrr",
    "answer_recall_at_1",
    "answer_recall_at_5",
    "coverage",
    "risk",
    "risk_at_equal_coverage",
    "citation_recall",
    "citation_precision",
    "exact_match_rare",
    "nll_rare",
    "exact_match_two_documents",
    "nll_two_documents",
    "style_match",
    "style_likeness",
    "answer_flops",
    "wording_accuracy",
    "wording_worst",
    "wording_agreement",
    "wording_style",
    "follows_passage",
    "follows_memory",
    "bits_per_byte",
    "kl_to_base",
    "choice_accuracy",
)
# Of each number of edits.
UPDATED = re.compile(r"(updated|stale|unharmed)_[1-9][0-9]*")
# Counted once for a system: no chance is in them, so that they are compared as they are.
COUNTED = ("training_flops", "setup_flops", "trained_parameters", "shipped_bytes", "components", "setup_steps")
COUNTED_UPDATES = re.compile(r"update_flops_[1-9][0-9]*")
LOWER_IS_BETTER = (
    "nll", "nll_rare", "nll_two_documents", "risk", "risk_at_equal_coverage", "answer_flops", "follows_memory",
    "bits_per_byte", "kl_to_base", *COUNTED,
)  # fmt: skip


def lower_is_better(metric: str) -> bool:
    """Whether less of a figure is better."""
    return metric in LOWER_IS_BETTER or metric.startswith("stale_") or COUNTED_UPDATES.fullmatch(metric) is not None


def is_counted(metric: str) -> bool:
    """Whether a figure is counted, and has no interval."""
    return metric in COUNTED or COUNTED_UPDATES.fullmatch(metric) is not None


class MeasureSection(Section):
    """What is measured beside the answers to the test questions; each part takes time of its own."""

    wordings: int = Field(default=0, ge=0, description="Test questions that are asked in eight wordings each.")
    style: int = Field(
        default=0,
        ge=0,
        description="Training questions that the untuned model answers, so that a classifier learns to tell the form "
        "of the wanted answers from its own; 32 or more.",
    )
    counterfactuals: int = Field(
        default=0,
        ge=0,
        description="Test questions whose right passage is shown with another answer in it: does the system read?",
    )
    updates: tuple[int, ...] = Field(
        default=(), description="Numbers of documents that are edited at once, each asked about afterwards."
    )
    untouched: int = Field(default=20, ge=0, description="Questions that no edit is about, asked after edits too.")
    general: tuple[PathText, ...] | None = Field(
        default=None, min_length=1, description="Files that forgetting is measured on; see evaluate.forgetting."
    )
    general_rows: int = Field(default=100, ge=1, description="Rows of each kind that are used of those files.")
    curve: tuple[float | int, ...] = Field(
        default=(),
        description="Smaller numbers of training questions, or shares of them below 1, that systems are trained on "
        "anew.",
    )
    noise: float | None = Field(
        default=None, gt=0, le=1, description="Share of the training answers that are swapped for wrong ones."
    )
    imbalance: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the rarer kinds of training questions that is taken away: all but the commonest kind.",
    )
    variants_of: tuple[str, ...] | None = Field(
        default=None, description="Systems that curve, noise and imbalance are for. null: all that learn."
    )
    imbalance_of: tuple[str, ...] | None = Field(
        default=None, description="Systems that imbalance is for, where these are others than variants_of."
    )
    updates_of: tuple[str, ...] | None = Field(
        default=None,
        description="Systems that updates are for: each that learns by heart is trained anew. null: all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = {key: tuple(one) if isinstance(one, list) else one for key, one in value.items()}
        for key in ("updates", "curve"):
            if isinstance(value.get(key), (int, float)):
                value[key] = (value[key],)
        for key in ("general", "variants_of", "imbalance_of", "updates_of"):
            if isinstance(value.get(key), str):
                value[key] = (value[key],)
        return value

    @model_validator(mode="after")
    def _numbers_are_whole(self) -> MeasureSection:
        if wrong := [one for one in self.updates if one < 1]:
            raise ClashError(f"{wrong[0]} is less than 1", ("updates",))
        if fault := [one for one in self.curve if not (0 < one < 1 or (one >= 2 and one == int(one)))]:
            raise ClashError(f"{fault[0]:g} is no number of questions from 2 on, and no share of them", ("curve",))
        for key in ("updates", "curve"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ClashError("names one number twice", (key,))
        return self


class ContrastSection(Section):
    """One question that the comparison is to settle, written down before it runs."""

    a: str = Field(
        min_length=1,
        description="The system that is expected to be better; NAME@VARIANT for one trained otherwise "
        "(measure.curve, noise, imbalance): reader@50, reader@noise, reader@imbalance.",
    )
    b: str = Field(min_length=1, description="The system that it is held against.")
    metric: str = Field(default="nll", description="A figure of comparison.json that both have.")

    @field_validator("metric")
    @classmethod
    def _figure_is_known(cls, value: str) -> str:
        if value in FIGURES or UPDATED.fullmatch(value) or is_counted(value):
            return value
        raise ValueError(
            f"no figure is called {value}; there are {', '.join((*FIGURES, *COUNTED))}, and of each number of edits "
            "updated_N, stale_N, unharmed_N and update_flops_N"
        )


class CombinationSection(Section):
    """Other systems, answering as one. What decides between them is learnt from the held-back questions."""

    kind: Literal["router", "mixture", "memory"] = Field(
        description="router: each question goes to one of them. mixture: next-token probabilities of a tuned model, "
        "without passages, and of a reader, a passage at a time. memory: a model beside which counts what came next "
        "in the passages and training answers (kNN-LM)."
    )
    of: tuple[str, ...] = Field(
        min_length=1, description="Systems: of a router any, of a mixture [TUNED, READER], of a memory [MODEL]."
    )
    neighbours: int = Field(default=64, ge=1, description="Remembered places that count for a token.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("of"), (list, str)):
            return value | {"of": (value["of"],) if isinstance(value["of"], str) else tuple(value["of"])}
        return value

    @model_validator(mode="after")
    def _as_many_as_it_takes(self) -> CombinationSection:
        count, wanted = len(self.of), {"router": "two at least", "mixture": "two", "memory": "one"}[self.kind]
        fits = {"router": count > 1, "mixture": count == 2, "memory": count == 1}[self.kind]
        if not fits or len(set(self.of)) < count:
            raise ClashError(f"a {self.kind} is of {wanted}, each once", ("of",))
        return self


class ClaimSection(ContrastSection):
    """Something that is said of methods, as a contrast that can be lost."""

    id: str = Field(min_length=1, pattern="^[a-z0-9-]+$", description="Names it in tables and in advice.")
    text: str = Field(min_length=1, description="The claim in words.")
    kind: Literal["better", "equal"] = Field(
        default="better", description="a is better than b, or: they differ by less than margin."
    )
    margin: float = Field(
        default=0.0, ge=0, description="By how much a must be better at least; of equal, the most they may differ."
    )

    @model_validator(mode="after")
    def _equal_has_a_margin(self) -> ClaimSection:
        if self.kind == "equal" and not self.margin:
            raise ClashError("equal needs the most that the two may differ", ("margin",))
        return self


class StagedSection(Section):
    """Enhancement rung by rung: each must beat what stands on the same questions, or it is left out."""

    rungs: tuple[str, ...] = Field(min_length=2, description="Systems, in the order in which they are tried.")
    metric: str = Field(default="nll", description="The figure that decides.")
    level: float = Field(default=0.05, gt=0, lt=1, description="Highest p-value (Holm over the rungs) of a step up.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("rungs"), list):
            return value | {"rungs": tuple(value["rungs"])}
        return value

    @field_validator("metric")
    @classmethod
    def _figure_has_an_interval(cls, value: str) -> str:
        if value in FIGURES or UPDATED.fullmatch(value):
            return value
        raise ValueError(f"{value} is no figure with an interval; there are {', '.join(FIGURES)}")
