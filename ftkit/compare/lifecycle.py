"""What each way costs over its life: what it is made of, what setting it up takes, and what a change takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ftkit.compare.opened import Opened, took_file
from ftkit.compare.work import Cost
from ftkit.recipe import CombinationSection, SystemSection


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Of one system, counted from its runs.

    Attributes:
        components: That have to be there to answer.
        setup: Steps from nothing to the first answer.
        setup_s: Seconds of these; None where the index was made in several goes.
        disk_bytes: Of each component.
        memory_bytes: Of weights, vectors and adapters in memory, counted and not measured.
        on_change: What a changed document takes.
    """

    components: tuple[str, ...]
    setup: tuple[str, ...]
    setup_s: float | None
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
        return found if self.setup_s is None else found | {"setup_s": self.setup_s}

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json."""
        return {
            "components": list(self.components),
            "setup": list(self.setup),
            "setup_s": self.setup_s,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "on_change": self.on_change,
        }


def lifecycle_of(opened: Opened, system: SystemSection, costs: Sequence[Cost]) -> Lifecycle:
    """Count a system's.

    Args:
        opened: The comparison.
        system: One of its systems.
        costs: Of its training, one a seed; the mean counts.
    """
    if system.combines is not None:
        return _combined(opened, system.combines, costs)
    encoders, index = opened.shared.encoders, opened.shared.index.folder
    shipped = max((one.shipped_bytes for one in costs), default=0)
    searches = system.retrieval not in ("none", "oracle")
    embeds = searches and system.retrieval != "lexical"
    tuned = bool(system.learns) or "reader" in system.stages
    own_encoder = bool({"retriever", "joint"} & set(system.stages))
    kind = (system.generator or opened.spec.generator).recipe
    disk = {"base model": _bytes(opened.base_folder)}
    if tuned or own_encoder:
        disk[f"what was trained ({kind})" if tuned else "trained encoder"] = shipped
    if embeds and not own_encoder:
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
    setup.append("serve")
    trained = sum(one.seconds for one in costs) / max(len(costs), 1)
    took = took_file(index)
    indexed = json.loads(took.read_text(encoding="utf-8"))["seconds"] if took.is_file() else None
    memory = _weights(opened.base.model) + (shipped if tuned or own_encoder else 0)
    if embeds:
        memory += 0 if own_encoder else _weights(encoders.document.module)
        memory += (index / "vectors.f32").stat().st_size if (index / "vectors.f32").is_file() else 0
    return Lifecycle(
        components=tuple(disk),
        setup=tuple(setup),
        setup_s=trained if not searches else None if indexed is None else indexed + trained,
        disk_bytes=disk,
        memory_bytes=memory,
        on_change=_on_change(system, searches=searches),
    )


def _combined(opened: Opened, combined: CombinationSection, costs: Sequence[Cost]) -> Lifecycle:
    """What all of its systems need, each thing once, and what decides between them."""
    parts = [lifecycle_of(opened, opened.spec.systems[name], costs) for name in combined.of]
    disk: dict[str, int] = {}
    for name, part in zip(combined.of, parts, strict=True):
        for component, size in part.disk_bytes.items():
            shared = component in ("base model", "encoder", "index", "documents")
            disk[component if shared else f"{component} of {name}"] = size
    setup = list(dict.fromkeys(step for part in parts for step in part.setup))
    learnt = {"router": "learn who answers what", "mixture": "choose a weight", "memory": "read and remember"}
    seconds = [part.setup_s for part in parts]
    return Lifecycle(
        components=(*disk, combined.kind),
        setup=(*setup[:-1], f"{learnt[combined.kind]}, by held-back questions", "serve"),
        setup_s=None if None in seconds else max(one for one in seconds if one is not None),
        disk_bytes=disk,
        memory_bytes=sum(part.memory_bytes for part in parts) - (len(parts) - 1) * _weights(opened.base.model),
        on_change="; ".join(dict.fromkeys(part.on_change for part in parts)),
    )


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
