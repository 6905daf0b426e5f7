"""What the person measured: a comparison.json, read as utilities of the four options."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.advise.options import OPTIONS, Criterion, Option, Reason, Utility
from ftkit.errors import DataError

# The figure that stands for a criterion: the first that two measured options have. True: lower is better.
FIGURES: dict[Criterion, tuple[tuple[str, bool], ...]] = {
    "accuracy": (("exact_match", False), ("f1", False), ("nll", True)),
    # At equal coverage first: who abstains more is wrong less often, whatever it knows.
    "factuality": (("hallucination", True), ("risk_at_equal_coverage", True), ("risk", True)),
    "latency": (("latency_s.total.p50", True), ("latency_s.generate.p50", True)),
    "consistency": (("consistency", False), ("wording_agreement", False)),
    "style": (("style", False), ("style_likeness", False), ("style_match", False)),
    "cost": (("serving_flops", True), ("answer_flops", True), ("training_s", True)),
}
RATIOS = ("latency", "cost")  # what is twice as slow is half as good, whatever the unit
LEAST_DEVIATION = 0.02
# By words of a system's name, where the comparison does not say what kind it is; the first that fits.
WORDS: tuple[tuple[Option, str], ...] = (
    ("hybrid", r"hybrid|raft|joint|separate|rag.*(tuned|lora)|(tuned|lora|full).*rag|\breader\b"),
    ("rag", r"rag|bm25|dense|retriev|oracle"),
    ("fine-tuning", r"fine.?tun|tuned|lora|full|prefix|prompt.?tuning|adapter"),
    ("prompting", r"prompt|base|closed"),
)
NOT_FOR_SALE = re.compile("oracle")  # nobody has the right passages beforehand


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured.

    Attributes:
        utilities: By criterion and option.
        reasons: By criterion, what was read.
        systems: By option, the system that stands for it.
        scale: Of the comparison, in words.
    """

    utilities: dict[Criterion, dict[Option, Utility]] = field(default_factory=dict)
    reasons: dict[Criterion, Reason] = field(default_factory=dict)
    systems: dict[Option, str] = field(default_factory=dict)
    scale: str = ""


def read_evidence(path: str | Path) -> Evidence:
    """Read a comparison.

    Raises:
        DataError: It is none, or holds no system that stands for an option.
    """
    place = Path(path)
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        systems: dict[str, dict[str, Any]] = document["systems"]
        if not isinstance(systems, dict) or not all(isinstance(one, dict) for one in systems.values()):
            raise TypeError("systems is no mapping of names to figures")
    except FileNotFoundError:
        raise DataError(f"{place}: is no file", fix="Make one: ftkit compare SPEC") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: is no comparison: {error}", fix="Name a comparison.json of ftkit compare."
        ) from None
    kinds = document.get("kinds") or {}
    grouped: dict[Option, list[str]] = {}
    for name in systems:
        kind = kinds[name] if name in kinds else kind_of(name)
        if kind in OPTIONS and not NOT_FOR_SALE.search(name):
            grouped.setdefault(kind, []).append(name)
    if not grouped:
        raise DataError(
            f"{place}: no system in it is prompting, fine-tuning, rag or hybrid",
            fix='Say which each is: {"kinds": {"NAME": "rag"}}.',
        )
    chosen = {option: _best(names, systems) for option, names in grouped.items()}
    utilities, reasons = {}, {}
    for criterion in FIGURES:
        if found := _criterion(criterion, {option: systems[name] for option, name in chosen.items()}):
            utilities[criterion], words = found
            reasons[criterion] = Reason(text=words, id=f"M-{criterion}")
    scale = document.get("scale") or {}
    return Evidence(utilities=utilities, reasons=reasons, systems=chosen, scale=_scale(scale))


def kind_of(name: str) -> Option | None:
    """What a system is, by its name."""
    if name in OPTIONS:
        return name
    return next((option for option, words in WORDS if re.search(words, name.casefold())), None)


def _best(names: list[str], systems: Mapping[str, Mapping[str, Any]]) -> str:
    """The one of an option that answers best: nobody would put another one in place."""
    for figure, lower in FIGURES["accuracy"]:
        values = {name: _value(systems[name].get(figure)) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            return min(known, key=lambda name: known[name] if lower else -known[name])
    return names[0]


def _criterion(
    criterion: Criterion, systems: Mapping[Option, Mapping[str, Any]]
) -> tuple[dict[Option, Utility], str] | None:
    for figure, lower in FIGURES[criterion]:
        known = {option: value for option, one in systems.items() if (value := _value(one.get(figure))) is not None}
        if len(known) < 2:
            continue  # one alone says nothing of the others
        found = {}
        for option, value in known.items():
            low, high = systems[option][figure].get("low"), systems[option][figure].get("high")
            spread = 0.05 if low is None or high is None else (float(high) - float(low)) / 3.92
            found[option] = _utility(criterion, figure, lower, value, spread, list(known.values()))
        words = ", ".join(f"{option} {value:.3g}" for option, value in known.items())
        return found, f"measured {figure}: {words}"
    return None


def _utility(
    criterion: Criterion, figure: str, lower: bool, value: float, spread: float, all_values: list[float]
) -> Utility:
    if criterion in RATIOS:
        # Halves each time it doubles against the cheapest; what costs nothing is as good as can be.
        floor = max(min(all_values), 1e-3 * max(all_values), 1e-12)
        mean = 1.0 / (1.0 + math.log2(max(value, floor) / floor) / 3)
        return Utility(mean=mean, deviation=max(LEAST_DEVIATION, 0.05))
    if figure == "nll":
        mean = math.exp(-value)
        return Utility(mean=mean, deviation=max(LEAST_DEVIATION, mean * spread))
    return Utility(mean=1.0 - value if lower else value, deviation=max(LEAST_DEVIATION, spread))


def _value(figure: Any) -> float | None:
    value = figure.get("value") if isinstance(figure, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _scale(scale: Mapping[str, Any]) -> str:
    parts = [
        str(scale["model"]) if "model" in scale else "",
        f"{scale['test_questions']} questions" if "test_questions" in scale else "",
        str(scale.get("date", "")),
    ]
    return ", ".join(part for part in parts if part)
