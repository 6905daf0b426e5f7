"""Numbers of the report as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LOWER_IS_BETTER = {"loss", "perplexity", "nll"}
NONE = "–"


def number(value: Any) -> float | None:
    """A finite number, else None: a missing, null or damaged entry is shown as missing."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None


def pick(values: Any, *keys: str) -> Any:
    """An entry of nested mappings, or None where a step is missing."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def pick_number(values: Any, *keys: str) -> float | None:
    """A finite number in nested mappings, or None."""
    return number(pick(values, *keys))


def whole(value: float | None) -> str:
    """``1234567`` -> ``1,234,567``."""
    return NONE if value is None else f"{value:,.0f}"


def loss_text(value: float | None) -> str:
    """Three places, as differences between losses are read in the second."""
    return NONE if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """``0.725`` -> ``72.5%``; ``0.7`` -> ``70%``."""
    return NONE if share is None else f"{100 * share:.1f}".removesuffix(".0") + "%"


def score_text(name: str, value: float | None) -> str:
    """A metric: scores as percent (they lie between 0 and 1), losses and perplexities as they are."""
    return loss_text(value) if name in LOWER_IS_BETTER else percent(value)


def plain(value: float) -> str:
    """Up to four significant digits; whole numbers in full."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.4g}"


def movement(before: float, after: float) -> str:
    """``fell``, ``rose`` or ``stayed``."""
    return "stayed" if after == before else "fell" if after < before else "rose"


def judgement(before: float, after: float, *, lower_is_better: bool) -> str:
    """``better``, ``worse`` or ``no change``."""
    if after == before:
        return "no change"
    return "better" if (after < before) == lower_is_better else "worse"
