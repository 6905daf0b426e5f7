"""What each way costs over its life: what it is made of, what setting it up takes, and what a change takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.compare.opened import Opened, took_file
from ftkit.compare.work import Cost
from ftkit.recipe import CombinationSection, SystemSection

BASE, SERVE = "base model", "serve"
SHARED = (BASE, "encoder", "index", "documents")


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Of one system, counted from its runs.

    Attributes:
        components: That have to be there to answer.
        setup: Steps from nothing to the first answer.
        setup_s: Seconds of these; None where the index was made in several goes.
        setup_flops: Floating-point operations of these: embedding passages, and training; None where unknown.
        disk_bytes: Of each component.
        memory_bytes: Of weights, vectors and adapters in memory, counted and not measured.
        on_change: What a changed document takes.
    """

    components: tuple[str, ...]
    setup: tuple[str, ...]
    setup_s: float | None
    setup_flops: float | None
    disk_bytes: dict[str, int]
    memory_bytes: int
    on_change: str

    @property
    def counted(self) -> dict[str, float]:
        """As figures."""
        found = {
            "components": float(len(self.components)),
            "setup_steps": float(len(self.setup)),
            "disk_bytes": float(sum(self.disk_bytes.values())),
            "memory_bytes": float(self.memory_bytes),
        }
        known = {"setup_s": self.setup_s, "setup_flops": self.setup_flops}
        return found | {name: value for name, value in known.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json."""
        return {
            "components": list(self.components),
            "setup": list(self.setup),
            "setup_s": self.setup_s,
            "setup_flops": self.setup_flops,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "on_change": self.on_change,
        }


def lifecycle_of(opened: Opened, name: str, costs: Mapping[str, Sequence[Cost]]) -> Lifecycle:
    """Count a system's.

    Args:
        opened: The comparison.
        name: Of one of its systems.
        costs: Of each system's training, one a seed; the mean counts.
    """
    system = opened.spec.systems[name]
    if system.combines is not None:
        return _combined(opened, system.combines, costs)
    return _single(opened, system, costs[name])


def _single(opened: Opened, system: SystemSection, costs: Sequence[Cost]) -> Lifecycle:
    encoders, index = opened.shared.encoders, opened.shared.index.folder
    shipped = max((one.shipped_bytes for one in costs), default=0)
    searches = system.retrieval not in ("none", "oracle")
    tuned = bool(system.learns) or "reader" in system.stages
    own_encoder = bool({"retriever", "joint"} & set(system.stages))
    kind = (system.generator or opened.spec.generator).recipe
    replaces = tuned and kind == "full"  # its export is a model of its own
    disk = {} if replaces else {BASE: _bytes(opened.base_folder)}
    if tuned or own_encoder:
        disk[f"what was trained ({kind})" if tuned else "trained encoder"] = shipped
    if searches and not own_encoder:  # an index has vectors, whatever is asked of it
        disk["encoder"] = _bytes(encoders.document.found.folder)
    if searches:
        disk["index"] = _bytes(index)
        disk["documents"] = sum(len(one.text.encode()) for one in opened.workload.corpus.documents)
    setup = []
    if searches:
        count = opened.shared.index.passages
        setup += ["read the documents", f"cut them into {count} passages and index them"]
    if system.learns:
        setup += [f"write training rows from {' and '.join(system.learns)}", f"fine-tune ({kind})"]
    if system.stages:
        setup += ["write questions with answers", *(f"train the stage {stage}" for stage in system.stages)]
    if tuned:
        setup.append("export and verify")
    setup.append(SERVE)
    trained = sum(one.seconds for one in costs) / max(len(costs), 1)
    took = took_file(index)
    indexed = json.loads(took.read_text(encoding="utf-8"))["seconds"] if took.is_file() else None
    flops = [one.flops for one in costs]
    memory = (0 if replaces else _weights(opened.base.model)) + (shipped if tuned or own_encoder else 0)
    if searches:
        memory += 0 if own_encoder else _weights(encoders.document.module)
        memory += (index / "vectors.f32").stat().st_size if (index / "vectors.f32").is_file() else 0
    return Lifecycle(
        components=tuple(disk),
        setup=tuple(setup),
        setup_s=trained if not searches else None if indexed is None else indexed + trained,
        setup_flops=None
        if None in flops
        else sum(one or 0.0 for one in flops) / max(len(flops), 1) + (opened.index_flops if searches else 0.0),
        disk_bytes=disk,
        memory_bytes=memory,
        on_change=_on_change(system, searches=searches),
    )


def _combined(opened: Opened, combined: CombinationSection, costs: Mapping[str, Sequence[Cost]]) -> Lifecycle:
    """What all of its systems need, each thing once, and what decides between them."""
    parts = [lifecycle_of(opened, name, costs) for name in combined.of]
    disk: dict[str, int] = {}
    for name, part in zip(combined.of, parts, strict=True):
        for component, size in part.disk_bytes.items():
            disk[component if component in SHARED else f"{component} of {name}"] = size
    setup = list(dict.fromkeys(step for part in parts for step in part.setup if step != SERVE))
    learnt = {"router": "learn who answers what", "mixture": "choose a weight", "memory": "read and remember"}
    shared = sum(max(part.disk_bytes.get(name, 0) for part in parts) for name in (BASE, "encoder"))
    again = sum(part.disk_bytes.get(name, 0) for part in parts for name in (BASE, "encoder"))
    return Lifecycle(
        components=(*disk, combined.kind),
        setup=(*setup, f"{learnt[combined.kind]}, by held-back questions", SERVE),
        setup_s=_sum(part.setup_s for part in parts),
        setup_flops=_sum(part.setup_flops for part in parts),
        disk_bytes=disk,
        # Weights on the disk and in memory are of one size, about: what both need is there once.
        memory_bytes=sum(part.memory_bytes for part in parts) - (again - shared),
        on_change="; ".join(dict.fromkeys(part.on_change for part in parts)),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """None where one is unknown."""
    known = list(values)
    return None if None in known else sum(one for one in known if one is not None)


def _on_change(system: SystemSection, *, searches: bool) -> str:
    if searches:
        return "the new document into the index; the next answer follows"
    if "documents" in system.learns:
        return "training anew"
    return "nothing can be done: it does not know the documents" if system.retrieval == "none" else "–"


def _weights(module: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in module.parameters())


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
