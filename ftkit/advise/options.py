"""What there is to choose from, and what it is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Option = Literal["prompting", "fine-tuning", "rag", "hybrid"]
Criterion = Literal["accuracy", "factuality", "latency", "consistency", "style", "cost"]
OPTIONS: tuple[Option, ...] = get_args(Option)
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One line of an advice, and where it comes from.

    Attributes:
        text: A sentence.
        id: ``V-`` a veto by rule, ``R-`` a rule, ``L-`` literature, ``M-`` the person's own measurement, ``S-`` a
            switch point, ``P-`` the ranking.
    """

    text: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Veto:
    """An option that is out, whatever is measured."""

    option: Option
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What a rule or a paper says of some options on one criterion.

    Attributes:
        criterion: That it is about.
        effects: By option, what it adds to the utility; 0.1 is a little, 0.3 much.
        reason: Why.
    """

    criterion: Criterion
    effects: dict[Option, float]
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Utility:
    """How good an option is on a criterion, from 0 to 1, and how sure that is (one standard deviation)."""

    mean: float
    deviation: float
