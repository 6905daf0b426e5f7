"""Proof that what was written is the combination of its sources, and how far it is from each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.errors import VerificationError
from ftkit.export.limits import LIMITS
from ftkit.export.measure import distances
from ftkit.export.probes import Probes, measure_trained
from ftkit.methods import Built, Combination, expected_output, expected_update, read_lora
from ftkit.notices import log
from ftkit.pipeline.combination_sources import Source

# How much of the combined update's length an adapter of lower rank may lose before it is something else.
MAX_LOST = 0.5
# Between two ways of computing one update, as a share of its length. Where signs are elected or entries trimmed, a
# few may fall the other way by rounding.
SAME_UPDATE, SAME_ENTRIES = 1e-4, 5e-3


def require_update(
    folder: Path, sources: Sequence[Source], combination: Combination, built: Built
) -> dict[str, float]:
    """Hold a written adapter, layer by layer, to the update that the sources' files give by the formula.

    Args:
        folder: With the adapter.
        sources: With their matrices.
        combination: How.
        built: What the writer says of it.

    Returns:
        For each layer, the share of the update's length that the adapter's rank has no room for.

    Raises:
        VerificationError: It is another update, or more is lost than `MAX_LOST`.
    """
    written = read_lora(folder)
    adapters = [source.matrices for source in sources]
    layers = sorted({layer for adapter in adapters for layer in adapter})
    if sorted(written) != layers:
        raise VerificationError(f"the combination changes {len(written)} layers, its sources {len(layers)}")
    lost, squares, whole = {}, 0.0, 0.0
    for layer in layers:
        expected = expected_update(combination, adapters, layer)
        length = float(expected.norm())
        away = float((expected - written[layer].update()).norm())
        require_near(layer, abs(away - built.lost[layer]), length, combination)
        lost[layer] = away / length if built.lost[layer] > 0 and length > 0 else 0.0
        squares, whole = squares + (lost[layer] * length) ** 2, whole + length**2
    share = (squares / whole) ** 0.5 if whole > 0 else 0.0
    if share > MAX_LOST:
        raise VerificationError(
            f"an adapter of rank {built.rank} lacks room for {100 * share:.0f} % of the combined update's length: "
            f"it would be another combination than {combination.how} (at most {100 * MAX_LOST:.0f} % may be lost)",
            fix="Give a larger --rank or --density, or write the whole update: --to merged.",
        )
    return lost


def require_near(layer: str, away: float, length: float, combination: Combination) -> None:
    """Refuse an update that is further than rounding from the formula's.

    Args:
        layer: Its name.
        away: Length of the difference.
        length: Of the update by the formula.
        combination: How.

    Raises:
        VerificationError: It is.
    """
    limit = SAME_ENTRIES if combination.elects else SAME_UPDATE
    if away > limit * length + 1e-12:
        raise VerificationError(
            f"{layer}: the combined update is not what the adapters' files give by {combination.how}: "
            f"{away / max(length, 1e-12):.2g} of its length away, {limit:g} allowed",
            fix="Please report this; the result must not be used.",
        )


def expected_answers(probes: Probes, plain: Any, sources: Sequence[Source], combination: Combination) -> Probes:
    """What the base answers with a linear combination added to its layers' outputs, without PEFT."""
    adapters = [source.matrices for source in sources]
    expected = Probes(ids=probes.ids, positions=probes.positions, prompts=[], base=probes.base)
    with _added(plain, combination, adapters):
        measure_trained(expected, plain)
    return expected


@contextlib.contextmanager
def _added(plain: Any, combination: Combination, adapters: Sequence[Any]) -> Iterator[None]:
    def hook(layer: str) -> Any:
        def add(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            del module
            return output + expected_output(combination, adapters, layer, inputs[0])

        return add

    layers = sorted({layer for adapter in adapters for layer in adapter})
    handles = [plain.get_submodule(layer).register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def require_same_answers(expected: Probes, probes: Probes) -> None:
    """Hold the live combination to the sum of the sources' updates, on all probes.

    Raises:
        VerificationError: Its logits are others, by float32's limits.
    """
    found = _between(expected, probes, slice(None))
    limits = LIMITS["float32"]
    log.info("  against the sum of the updates: max |Δlogit| %.2g, mean KL %.2g", found["max_abs_diff"],
             found["kl_mean"])  # fmt: skip
    if found["max_abs_diff"] > limits.max_abs_diff or found["kl_mean"] > limits.kl_mean:
        raise VerificationError(
            f"the combined adapter does not answer as the sum of the updates does: max |Δlogit| "
            f"{found['max_abs_diff']:.2g}, mean KL {found['kl_mean']:.2g}",
            fix="Please report this; the result must not be used.",
        )


def _between(reference: Probes, probes: Probes, rows: slice) -> dict[str, float]:
    """How far the combination, on some of its probes, is from another model that was measured on them."""
    logits = {f"logits.{row}": value for row, value in enumerate(probes.trained[rows])}
    tops = {f"top.{row}": value for row, value in enumerate(probes.top[rows])}
    return distances(reference, logits | tops)


def combination_facts(
    sources: Sequence[Source], combination: Combination, built: Built, lost: dict[str, float], probes: Probes
) -> dict[str, Any]:
    """What is recorded of a combination: how it was made, and how far it is from each source on its own probes."""
    entries, start = [], 0
    for source, weight in zip(sources, combination.weights, strict=True):
        rows = slice(start, start + len(source.probes.ids))
        start = rows.stop
        found = _between(source.probes, probes, rows)
        # The untouched base in the combination's place; of its most likely tokens nothing is told.
        untouched = Probes(ids=[], positions=[], prompts=[], trained=probes.base[rows], top=source.probes.top)
        entries.append(
            {
                "name": source.name,
                "weight": weight,
                "weights_sha256": source.weights_sha256,
                "recipe_digest": source.manifest.recipe_digest,
                "data_digest": source.manifest.data_digest,
                "positions": sum(map(len, source.probes.positions)),
                "kl_mean": found["kl_mean"],
                "top1_agreement": found["top1_agreement"],
                "base_kl_mean": _between(source.probes, untouched, slice(None))["kl_mean"],
            }
        )
    settings: dict[str, Any] = {"how": combination.how}
    settings |= {} if combination.how == "linear" else {"density": combination.density}
    settings |= {"majority_sign": combination.majority_sign} if combination.elects else {}
    settings |= {"seed": combination.seed} if combination.is_random else {}
    whole = sum(length**2 for length in built.length.values())
    share = (sum(value**2 for value in built.lost.values()) / whole) ** 0.5 if whole > 0 else 0.0
    worst = max(lost, key=lambda layer: lost[layer])
    truncation = {"lost": share, "worst_layer": worst, "worst_lost": lost[worst], "layers": lost}
    return {**settings, "rank": built.rank, "truncation": truncation if share > 0 else None, "sources": entries}
