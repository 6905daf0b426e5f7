"""What `ftkit advise` is told: the person's own situation; whatever is left out is unknown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ftkit.recipe.base import Section
from ftkit.recipe.sections import PathText


class KnowledgeSection(Section):
    """What answers are made of."""

    stability: Literal["stable", "slow", "fast"] | None = Field(
        default=None, description="How soon answers grow old: stable (years), slow (months), fast (weeks or days)."
    )
    changes_per_month: float | None = Field(default=None, ge=0, description="How many facts or documents change.")
    specialised: bool | None = Field(
        default=None, description="Whether it is one domain with words and forms of its own."
    )


class ResourcesSection(Section):
    """What there is to work with."""

    memory_gib: float | None = Field(default=None, gt=0, description="Of the machine that trains.")
    gpu: bool | None = Field(default=None, description="Whether it has one.")
    expertise: Literal["low", "medium", "high"] | None = Field(
        default=None, description="Of those who train and look after it."
    )


class UpdateSection(Section):
    """How soon a change must be in the answers."""

    deadline_hours: float | None = Field(default=None, ge=0, description="Hours from a change to the new answer.")


class VerifiabilitySection(Section):
    """Whether answers must show where they come from."""

    citations: Literal["required", "useful", "unneeded"] | None = Field(
        default=None, description="Sources beside the answers."
    )


class PrioritiesSection(Section):
    """What counts how much; 0 is not at all."""

    accuracy: float | None = Field(default=None, ge=0, description="Right answers.")
    factuality: float | None = Field(default=None, ge=0, description="Nothing invented.")
    latency: float | None = Field(default=None, ge=0, description="Fast answers.")
    consistency: float | None = Field(default=None, ge=0, description="The same form each time.")
    style: float | None = Field(default=None, ge=0, description="A tone of its own.")
    cost: float | None = Field(default=None, ge=0, description="Cheap to make and to run.")


class SituationSection(Section):
    """Where it runs and what is at hand."""

    offline: bool | None = Field(default=None, description="Whether it answers without internet.")
    remote_index: bool | None = Field(default=None, description="Whether documents are only searched remotely.")
    documents: int | None = Field(default=None, ge=0, description="How many hold the knowledge.")
    examples: int | None = Field(default=None, ge=0, description="Questions with right answers, to train on.")
    requests_per_second: float | None = Field(default=None, ge=0, description="At the busiest time.")


class AdviseSpec(Section):
    """A situation. ``ftkit advise`` says which approach fits it, and why."""

    version: Literal[1] = Field(default=1, description="Of the format.")
    knowledge: KnowledgeSection = KnowledgeSection()
    resources: ResourcesSection = ResourcesSection()
    update: UpdateSection = UpdateSection()
    verifiability: VerifiabilitySection = VerifiabilitySection()
    priorities: PrioritiesSection = PrioritiesSection()
    situation: SituationSection = SituationSection()
    evidence: PathText | None = Field(default=None, description="A comparison.json of `ftkit compare`.")
