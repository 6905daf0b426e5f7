"""What an artefact on disk answers to the probes, measured in a process of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ftkit.export.probes import GREEDY_TOKENS, Probes
from ftkit.export.process import PROCESS, read_alone


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """Something on disk that can answer.

    Attributes:
        folder: With the artefact.
        kind: Of the export.
        base_folder: Of the base model, for artefacts that need one.
        quantization: Arguments of the BitsAndBytesConfig that the base is loaded with; None for plain weights.
        rows: That the embedding needs for added tokens; 0 for no more than it has.
        loader: A file that loads adapters that PEFT has no format for; None for PEFT.
        reader: The script that measures it, see `ftkit.export.target.Target`; None for ``verify_process.py``.
    """

    folder: Path
    kind: str
    base_folder: Path | None = None
    quantization: dict[str, Any] | None = None
    rows: int = 0
    loader: Path | None = None
    reader: Path | None = None

    def job(self) -> dict[str, Any]:
        """As plain values, for the reader."""
        return {
            "folder": str(self.folder.resolve()),
            "kind": self.kind,
            "base_folder": None if self.base_folder is None else str(self.base_folder),
            "quantization": self.quantization,
            "rows": self.rows,
            "loader": None if self.loader is None else str(self.loader),
        }


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an artefact answered.

    Attributes:
        greedy: Token ids of its greedy continuations of the probes' prompts.
        greedy_text: The same as text.
        distances: To the trained model and to the base, see `distances`.
        texts: What the artefact's folder makes of the texts that were asked for.
    """

    greedy: list[list[int]]
    greedy_text: list[str]
    distances: dict[str, float]
    texts: dict[str, Any]


def measure(artefact: Artefact, probes: Probes, texts: dict[str, Any] | None = None) -> Measured:
    """Load an artefact as its users will, without network, and hold its answers to the trained model's.

    Args:
        artefact: What to load.
        probes: Measured on the base and on the trained model.
        texts: What else ``verify_process.py`` is to do with the folder: ``fixtures``, ``contract`` and ``clocks``.

    Raises:
        ModelError: It cannot be loaded.
        ValueError: Its answers cannot be compared: NaN, or another vocabulary.
    """
    asked = {
        **artefact.job(),
        "greedy_tokens": GREEDY_TOKENS,
        "probes": {"ids": probes.ids, "positions": probes.positions, "prompts": probes.prompts},
    }
    wanted = texts or {}
    found: dict[str, Any] = {}
    if artefact.reader is not None and wanted:
        # Tokenizer and template are read by transformers all the same; what the engine's own make of the fixtures is
        # for its reader to tell, under names of its own.
        with read_alone({"folder": asked["folder"], **wanted}) as out:
            found = _found(out)
        wanted = {"fixtures": wanted["fixtures"]} if "fixtures" in wanted else {}
    with read_alone({**asked, **wanted}, artefact.reader or PROCESS) as out:
        found |= _found(out)
        logits = load_file(out / "logits.safetensors")
    return Measured(
        greedy=found["greedy"],
        greedy_text=found["greedy_text"],
        distances=distances(probes, logits),
        texts=found,
    )


def _found(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "found.json").read_text(encoding="utf-8"))
    if (out / "contract.json").is_file():
        found["contract"] = json.loads((out / "contract.json").read_text(encoding="utf-8"))
    return found


def distances(probes: Probes, logits: dict[str, Tensor]) -> dict[str, float]:
    """How far the artefact is from the trained model and from the base, in float64 where sums are long.

    Args:
        probes: With the logits of both.
        logits: Of the artefact: ``logits.N`` (positions, vocabulary) and ``top.N`` for each probe.

    Raises:
        ValueError: NaN among them, or another vocabulary.
    """
    rows = range(len(probes.ids))
    ours = torch.cat([logits[f"logits.{row}"] for row in rows]).double()
    trained, base = torch.cat(probes.trained).double(), torch.cat(probes.base).double()
    if ours.shape != trained.shape:
        raise ValueError(f"the artefact has {ours.shape[-1]} logits, the trained model {trained.shape[-1]}")
    if not bool(ours.isfinite().all()):
        raise ValueError("some of its logits are NaN or infinite")
    log_trained, log_ours = trained.log_softmax(-1), ours.log_softmax(-1)
    top = torch.cat([logits[f"top.{row}"] for row in rows])
    return {
        "max_abs_diff": float((ours - trained).abs().max()),
        "mean_abs_diff": float((ours - trained).abs().mean()),
        "kl_mean": max(0.0, float((log_trained.exp() * (log_trained - log_ours)).sum(-1).mean())),
        "top1_agreement": float((top == torch.cat(probes.top)).double().mean()),
        "base_mean_abs_diff": float((ours - base).abs().mean()),
        "trained_base_mean_abs_diff": float((trained - base).abs().mean()),
    }
