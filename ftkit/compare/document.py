"""comparison.json: every figure with its interval, what was tested, and at which scale all of it holds."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftkit.compare.claims import JudgedClaim
from ftkit.compare.contrasts import Contrast
from ftkit.compare.figures import LATENCIES, Standing
from ftkit.compare.lifecycle import Lifecycle
from ftkit.compare.opened import Opened
from ftkit.compare.staged import Step
from ftkit.compare.variants import questions_of
from ftkit.compare.work import Cost
from ftkit.export.manifest import library_versions
from ftkit.rag.intervals import Figure, intervals_of, values_of
from ftkit.recipe import CompareSpec, MeasureSection

FORMAT_VERSION = 1
FEWEST_GIVEN = 10  # answers that a risk is told of
SHORT = 1e4  # numbers from here on are written with a power of ten


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a comparison found so far.

    Attributes:
        opened: The comparison.
        standings: By system, variants after them as NAME@VARIANT.
        costs: The same, one a seed.
        contrasts: What was tested.
        claims: What became of them.
        staged: The rung that stands, and every step; None where nothing was asked for.
        lifecycles: By system.
        waiting: What there was no time for.
    """

    opened: Opened
    standings: Mapping[str, Standing]
    costs: Mapping[str, Sequence[Cost]]
    contrasts: Sequence[Contrast]
    claims: Sequence[JudgedClaim]
    staged: tuple[str | None, Sequence[Step]] | None
    lifecycles: Mapping[str, Lifecycle]
    waiting: Sequence[str]


def comparison_document(found: Measured) -> dict[str, Any]:
    """The content of comparison.json."""
    spec = found.opened.spec
    figures = {name: one.to_dict() | _costs(found.costs[name], one) for name, one in found.standings.items()}
    own = {name: one for name, one in found.standings.items() if name in spec.systems}
    alike = _equal_coverage(own)
    figures = {name: one | alike.get(name, {}) for name, one in figures.items()}
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "systems": {name: figures[name] for name in own},
        "variants": {name: one for name, one in figures.items() if name not in own},
        "kinds": {name: _kind(spec, name, found.standings) for name in own},
        "tests": [asdict(one) | {"verdict": one.verdict} for one in found.contrasts],
        "claims": [one.to_dict() for one in found.claims],
        "staged": None,
        "style": None if found.opened.manner is None else found.opened.manner.to_dict(),
        "curves": _curves(found),
        "lifecycle": {name: one.to_dict() for name, one in found.lifecycles.items()},
        "scale": scale_of(found),
        "waiting": list(dict.fromkeys(found.waiting)),
        "settings": spec.model_dump(mode="json"),
        "plan": asdict(found.opened.plan),
    }
    if found.staged is not None and spec.staged is not None:
        stands, steps = found.staged
        document["staged"] = {
            "stands": stands, "metric": spec.staged.metric, "level": spec.staged.level,
            "steps": [one.to_dict() for one in steps],
        }  # fmt: skip
    return document


def _equal_coverage(standings: Mapping[str, Standing]) -> dict[str, dict[str, Any]]:
    """Risk where every system gives only as many answers as the one that gives the fewest."""
    coverage = min((one.least_coverage for one in standings.values()), default=0.0)
    found: dict[str, dict[str, Any]] = {}
    if any(coverage * one.questions < FEWEST_GIVEN for one in standings.values()):
        return found  # somebody hardly answers: so few answers of the others say nothing of them
    for name, one in standings.items():
        figure: dict[str, Figure] = {"risk": one.risk_at(coverage)}
        value, between = values_of(figure, one.questions)["risk"], intervals_of(figure, one.clusters)["risk"]
        if value is not None:
            low, high = (None, None) if between is None else between
            found[name] = {"risk_at_equal_coverage": {"value": value, "low": low, "high": high, "coverage": coverage}}
    return found


def _curves(found: Measured) -> dict[str, list[dict[str, Any]]]:
    """What each system that was trained on other numbers of questions reached with them."""
    spec = found.opened.spec
    curves = {}
    for name in spec.varied:
        points = curve_points(spec.measure, name, len(found.opened.workload.train))
        known = [(count, found.standings[label].to_dict()) for count, label in points if label in found.standings]
        if len(known) > 1:
            curves[name] = [
                {"questions": count, **{key: figures[key] for key in ("exact_match", "nll")}}
                for count, figures in known
            ]
    return curves


def curve_points(measure: MeasureSection, name: str, there: int) -> list[tuple[int, str]]:
    """How many questions each system of a curve was trained on, and its label; fewest first.

    Args:
        measure: With the curve.
        name: Of the system that was trained on all questions.
        there: How many these are.
    """
    fewer = sorted((questions_of(one, there), f"{name}@{one:g}") for one in measure.curve)
    return [*fewer, (there, name)]


def scale_of(found: Measured) -> dict[str, Any]:
    """What every table of this comparison must say with its figures."""
    spec, workload = found.opened.spec, found.opened.workload
    return {
        "model": spec.model.path,
        "parameters": sum(value.numel() for value in found.opened.base.model.parameters()),
        "encoder": spec.retriever.encoder,
        "documents": len(workload.corpus.documents),
        "passages": found.opened.shared.index.passages,
        "train_questions": len(workload.train),
        "test_questions": len(workload.test),
        "clusters": len(set(next(iter(found.standings.values())).clusters)) if found.standings else 0,
        "seeds": list(spec.seeds),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": library_versions(),
    }


def _costs(costs: Sequence[Cost], standing: Standing) -> dict[str, dict[str, Any]]:
    """Means over the seeds; of memory the most."""
    found: dict[str, float | None] = {
        "training_s": sum(one.seconds for one in costs) / len(costs),
        "training_steps": sum(one.steps for one in costs) / len(costs),
        "peak_memory_bytes": float(max(one.peak_memory_bytes for one in costs)),
        "tokens_per_s": _speed(standing),
    }
    return {name: {"value": value, "low": None, "high": None} for name, value in found.items() if value is not None}


def _speed(standing: Standing) -> float | None:
    """Tokens generated in a second, of the questions that were asked by themselves."""
    measured = [one.measured for one in standing.evaluations[0].outcomes]
    alone = [(one.tokens, one.generate_s) for one in measured if one.generate_s and one.tokens]
    return sum(tokens for tokens, _ in alone) / sum(seconds for _, seconds in alone) if alone else None


def _kind(spec: CompareSpec, name: str, standings: Mapping[str, Standing]) -> str | None:
    """In the words of `ftkit advise`; None for what cannot be had."""
    system = spec.systems[name]
    if system.retrieval == "oracle":
        return None  # nobody has the right passages beforehand
    if system.combines is not None:
        settings = standings[name].evaluations[0].settings
        chosen = (settings["best"],) if settings.get("promoted") is False else system.combines.of
        kinds = {_kind(spec, one, standings) for one in chosen}
        return kinds.pop() if len(kinds) == 1 and system.combines.kind == "router" else "hybrid"
    if system.retrieval == "none":
        return "fine-tuning" if system.learns else "prompting"
    return "hybrid" if system.learns or "reader" in system.stages else "rag"


def scale_text(scale: Mapping[str, Any]) -> str:
    """One line that stands under every table."""
    return (
        f"{scale['model']} ({scale['parameters'] / 1e6:.0f} M parameters), {scale['encoder']}; "
        f"{scale['documents']} documents, {scale['passages']} passages; trained on {scale['train_questions']} and "
        f"measured on {scale['test_questions']} questions of {scale['clusters']} documents, "
        f"{len(scale['seeds'])} seed{'s' if len(scale['seeds']) > 1 else ''}; {scale['machine']}, {scale['date']}. "
        "Another scale may give another order."
    )


TABLE = (
    "exact_match",
    "f1",
    "nll",
    "recall_at_1",
    "recall_at_5",
    "answer_recall_at_1",
    "risk",
    "risk_at_equal_coverage",
    "coverage",
)
COST_TABLE = ("training_flops", "training_s", "trained_parameters", "shipped_bytes", *LATENCIES[::2])


def table_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Name and figures with intervals of each system, as text."""
    return [[name, *(cell(figures.get(key)) for key in TABLE)] for name, figures in document["systems"].items()]


def cost_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Name and costs of each system, as text."""
    rows = []
    for name, figures in document["systems"].items():
        value = {key: (figures.get(key) or {}).get("value") for key in COST_TABLE}
        rows.append(
            [
                name,
                "–" if value["training_flops"] is None else f"{value['training_flops'] / 1e12:.1f}",
                *("–" if value[key] is None else f"{value[key]:,.0f}" for key in COST_TABLE[1:3]),
                "–" if value["shipped_bytes"] is None else f"{value['shipped_bytes'] / 2**20:.1f}",
                *("–" if value[key] is None else f"{value[key]:.3f}" for key in COST_TABLE[4:]),
            ]
        )
    return rows


COST_HEAD = ("system", "TFLOP", "seconds", "parameters", "MiB to ship", "retrieve s", "answer s")


def test_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """What was tested, as text."""
    rows = []
    for one in document["tests"]:
        rows.append(
            [
                f"{one['a']} – {one['b']}",
                one["metric"],
                signed(one["difference"]),
                between(one),
                "–" if one["documents"] is None else str(one["documents"]),
                "–" if one["p_holm"] is None else f"{one['p_holm']:.4f}",
                one["verdict"].replace("a is", f"{one['a']} is").replace("b is", f"{one['b']} is"),
            ]
        )
    return rows


TEST_HEAD = ("pair", "figure", "difference", "95 % interval", "documents", "p (Holm)", "verdict")


def signed(value: float | None) -> str:
    """A difference."""
    if value is None:
        return "–"
    return f"{value:+.3f}" if abs(value) < SHORT else f"{value:+.2e}"


def between(one: Mapping[str, Any]) -> str:
    """The interval of a difference."""
    return "–" if one["low"] is None else f"{signed(one['low'])} to {signed(one['high'])}"


def cell(figure: Mapping[str, Any] | None) -> str:
    """A value with its interval."""
    if figure is None or figure.get("value") is None:
        return "–"
    if figure.get("low") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.2f}–{figure['high']:.2f})"
