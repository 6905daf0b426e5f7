"""comparison.json: every figure with its interval, what was tested, and at which scale all of it holds."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftkit.compare.contrasts import Contrast
from ftkit.compare.figures import LATENCIES, Standing
from ftkit.compare.plan import Plan
from ftkit.compare.work import Cost
from ftkit.compare.workload import Workload
from ftkit.export.manifest import library_versions
from ftkit.recipe import CompareSpec

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a comparison found so far.

    Attributes:
        spec: Resolved.
        workload: As drawn.
        plan: How much was drawn.
        parameters: Of the base model.
        passages: In the index.
        standings: By system.
        costs: By system, one a seed.
        contrasts: What was tested.
        waiting: Systems that there was no time for.
    """

    spec: CompareSpec
    workload: Workload
    plan: Plan
    parameters: int
    passages: int
    standings: Mapping[str, Standing]
    costs: Mapping[str, Sequence[Cost]]
    contrasts: Sequence[Contrast]
    waiting: Sequence[str]


def comparison_document(found: Measured) -> dict[str, Any]:
    """The content of comparison.json."""
    return {
        "format_version": FORMAT_VERSION,
        "systems": {
            name: standing.to_dict() | _costs(found.costs[name]) for name, standing in found.standings.items()
        },
        "kinds": {name: _kind(found.spec, name) for name in found.standings},
        "tests": [asdict(one) | {"verdict": one.verdict} for one in found.contrasts],
        "scale": scale_of(found),
        "waiting": list(dict.fromkeys(found.waiting)),
        "settings": found.spec.model_dump(mode="json"),
        "plan": asdict(found.plan),
    }


def scale_of(found: Measured) -> dict[str, Any]:
    """What every table of this comparison must say with its figures."""
    spec, workload = found.spec, found.workload
    return {
        "model": spec.model.path,
        "parameters": found.parameters,
        "encoder": spec.retriever.encoder,
        "documents": len(workload.corpus.documents),
        "passages": found.passages,
        "train_questions": len(workload.train),
        "test_questions": len(workload.test),
        "clusters": len(set(next(iter(found.standings.values())).clusters)) if found.standings else 0,
        "seeds": list(spec.seeds),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": library_versions(),
    }


def _costs(costs: Sequence[Cost]) -> dict[str, dict[str, Any]]:
    """Means over the seeds; of memory the most."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [one for one in values if one is not None]
        return sum(known) / len(known) if len(known) == len(values) else None

    found = {
        "training_flops": mean([one.flops for one in costs]),
        "training_s": mean([one.seconds for one in costs]),
        "training_steps": mean([one.steps for one in costs]),
        "trained_parameters": mean([one.parameters for one in costs]),
        "peak_memory_bytes": float(max(one.peak_memory_bytes for one in costs)),
        "shipped_bytes": mean([one.shipped_bytes for one in costs]),
    }
    return {name: {"value": value, "low": None, "high": None} for name, value in found.items() if value is not None}


def _kind(spec: CompareSpec, name: str) -> str:
    """In the words of `ftkit advise`."""
    system = spec.systems[name]
    if system.retrieval == "none":
        return "fine-tuning" if system.learns else "prompting"
    return "hybrid" if "reader" in system.stages else "rag"


def scale_text(scale: Mapping[str, Any]) -> str:
    """One line that stands under every table."""
    return (
        f"{scale['model']} ({scale['parameters'] / 1e6:.0f} M parameters), {scale['encoder']}; "
        f"{scale['documents']} documents, {scale['passages']} passages; trained on {scale['train_questions']} and "
        f"measured on {scale['test_questions']} questions of {scale['clusters']} documents, "
        f"{len(scale['seeds'])} seed{'s' if len(scale['seeds']) > 1 else ''}; {scale['machine']}, {scale['date']}. "
        "Another scale may give another order."
    )


TABLE = ("exact_match", "f1", "nll", "recall_at_1", "recall_at_5", "answer_recall_at_1", "risk", "coverage")
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
        between = "–" if one["low"] is None else f"{one['low']:+.3f} to {one['high']:+.3f}"
        rows.append(
            [
                f"{one['a']} – {one['b']}",
                one["metric"],
                "–" if one["difference"] is None else f"{one['difference']:+.3f}",
                between,
                "–" if one["p_holm"] is None else f"{one['p_holm']:.4f}",
                one["verdict"].replace("a is", f"{one['a']} is").replace("b is", f"{one['b']} is"),
            ]
        )
    return rows


TEST_HEAD = ("pair", "figure", "difference", "95 % interval", "p (Holm)", "verdict")


def cell(figure: Mapping[str, Any] | None) -> str:
    """A value with its interval."""
    if figure is None or figure.get("value") is None:
        return "–"
    if figure.get("low") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.2f}–{figure['high']:.2f})"
