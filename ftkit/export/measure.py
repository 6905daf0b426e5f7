"""What an artefact on disk answers to the probes, measured in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ftkit.export.probes import GREEDY_TOKENS, Probes
from ftkit.export.process import PROCESS, read_alone, read_found


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
        prefix_ids: Tokens that stand in front of every text in this artefact, and that the probes' ids are without.
        reader: The script that measures it, see `ftkit.export.target.Target`; None for ``verify_process.py``.
        prepare: Makes of the base folder what the reader needs, see there.
    """

    folder: Path
    kind: str
    base_folder: Path | None = None
    quantization: dict[str, Any] | None = None
    rows: int = 0
    loader: Path | None = None
    prefix_ids: tuple[int, ...] = ()
    reader: Path | None = None
    prepare: Callable[[Path], AbstractContextManager[dict[str, Any]]] | None = None

    def job(self) -> dict[str, Any]:
        """As plain values, for the reader."""
        return {
            "folder": str(self.folder.resolve()),
            "kind": self.kind,
            "base_folder": None if self.base_folder is None else str(self.base_folder),
            "quantization": self.quantization,
            "rows": self.rows,
            "loader": None if self.loader is None else str(self.loader),
            "prefix_ids": list(self.prefix_ids),
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


def measure(
    artefact: Artefact, probes: Probes, texts: dict[str, Any] | None = None, tokenise: dict[str, Any] | None = None
) -> Measured:
    """Load an artefact as its users will, without network, and hold its answers to the trained model's.

    Args:
        artefact: What to load.
        probes: Measured on the base and on the trained model.
        texts: What else ``verify_process.py`` is to do with the folder: ``fixtures``, ``contract`` and ``clocks``.
        tokenise: Texts that the artefact's own reader is to cut with the engine's tokenizer.

    Raises:
        ModelError: It cannot be loaded.
        ValueError: Its answers cannot be compared: NaN, or another vocabulary.
    """
    # Engines' own readers are given what stands in front of texts as part of them.
    front = list(artefact.prefix_ids) if artefact.reader is not None else []
    asked = {
        **artefact.job(),
        "greedy_tokens": GREEDY_TOKENS,
        "probes": {
            "ids": [front + ids for ids in probes.ids],
            "positions": [[len(front) + position for position in positions] for positions in probes.positions],
            "prompts": [front + prompt for prompt in probes.prompts],
        },
    }
    wanted = texts or {}
    found: dict[str, Any] = {}
    if artefact.reader is not None and wanted:
        # Tokenizer and template are read by transformers all the same; what the engine's own make of the fixtures is
        # for its reader to tell, under names of its own.
        with read_alone({"folder": asked["folder"], **wanted}) as out:
            found = read_found(out)
        wanted = {"fixtures": wanted["fixtures"]} if "fixtures" in wanted else {}
    with contextlib.ExitStack() as stack:
        if artefact.prepare is not None and artefact.base_folder is not None:
            asked |= stack.enter_context(artefact.prepare(artefact.base_folder))
        asked |= {} if tokenise is None else {"tokenise": tokenise}
        out = stack.enter_context(read_alone({**asked, **wanted}, artefact.reader or PROCESS))
        found |= read_found(out)
        logits = load_file(out / "logits.safetensors")
    logits |= {name: value[len(front) :] for name, value in logits.items() if name.startswith("top.")}
    return Measured(
        greedy=found["greedy"],
        greedy_text=found["greedy_text"],
        distances=distances(probes, logits, artefact.prefix_ids),
        texts=found,
    )


def distances(probes: Probes, logits: dict[str, Tensor], prefix_ids: Sequence[int] = ()) -> dict[str, float]:
    """How far the artefact is from the trained model and from the base, in float64 where sums are long.

    Logits of tokens that the trained model has not, or that it has only as empty rows, are not compared: they are to
    lie below all others, which ``prefix_margin`` tells.

    Args:
        probes: With the logits of both.
        logits: Of the artefact: ``logits.N`` (positions, vocabulary) and ``top.N`` for each probe.
        prefix_ids: See `Artefact`.

    Returns:
        max_abs_diff, mean_abs_diff, kl_mean, top1_agreement, base_mean_abs_diff, trained_base_mean_abs_diff; with
        ``prefix_ids`` also prefix_margin: how far the highest of their logits stays below the lowest of all others.

    Raises:
        ValueError: NaN among them, or another vocabulary.
    """
    rows = range(len(probes.ids))
    ours = torch.cat([logits[f"logits.{row}"] for row in rows]).double()
    trained, base = torch.cat(probes.trained).double(), torch.cat(probes.base).double()
    expected = max(trained.shape[-1], *(id_ + 1 for id_ in prefix_ids)) if prefix_ids else trained.shape[-1]
    if ours.shape != (len(trained), expected):
        raise ValueError(f"the artefact has {ours.shape[-1]} logits, not {expected}")
    if not bool(ours.isfinite().all()):
        raise ValueError("some of its logits are NaN or infinite")
    own = torch.ones(trained.shape[-1], dtype=torch.bool)
    own[[id_ for id_ in prefix_ids if id_ < len(own)]] = False
    prefix = ours[:, list(prefix_ids)]
    ours, trained, base = ours[:, : len(own)][:, own], trained[:, own], base[:, own]
    log_trained, log_ours = trained.log_softmax(-1), ours.log_softmax(-1)
    top = torch.cat([logits[f"top.{row}"] for row in rows])
    extra = {} if not prefix_ids else {"prefix_margin": float((ours.amin(-1) - prefix.amax(-1)).min())}
    return extra | {
        "max_abs_diff": float((ours - trained).abs().max()),
        "mean_abs_diff": float((ours - trained).abs().mean()),
        "kl_mean": max(0.0, float((log_trained.exp() * (log_trained - log_ours)).sum(-1).mean())),
        "top1_agreement": float((top == torch.cat(probes.top)).double().mean()),
        "base_mean_abs_diff": float((ours - base).abs().mean()),
        "trained_base_mean_abs_diff": float((trained - base).abs().mean()),
    }
