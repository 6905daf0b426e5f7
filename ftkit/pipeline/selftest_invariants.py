"""What a selftest holds a recipe to: one function an invariant."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.export.limits import LIMITS as EXPORT_LIMITS
from ftkit.pipeline.selftest_runs import Trace


@dataclass(frozen=True, kw_only=True)
class Invariant:
    """One entry of a selftest's outcome.

    Attributes:
        name: Of the invariant.
        passed: None where it does not apply.
        value: What was measured.
        limit: How large it may be.
        detail: In words.
    """

    name: str
    passed: bool | None
    value: Any = None
    limit: Any = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StepLimits:
    """Attributes: gradient, loss: largest relative distance of two ways to compute a step."""

    gradient: float
    loss: float


# Sums of another shape round differently. Measured as relative distances of gradients and of losses, the largest: in
# float32 8.8e-7 and 1.6e-7 on SmolLM2-135M (LoRA, QLoRA, prefix), 2.2e-7 and 2.3e-7 on tiny models of three families
# and six methods; in bfloat16 on these 3.1e-3 and 2.8e-5, and not measured on a larger model, whose layers add their
# rounding: hence the room. On tiny models a loss that is averaged over passes was off by 0.88 and 0.88, rows that see
# each other in a pack by 0.36 and 0.0046.
LIMITS = {
    "float32": StepLimits(gradient=1e-4, loss=1e-5),
    "bfloat16": StepLimits(gradient=0.1, loss=1e-2),
}


def check_batching(found: dict[str, Any]) -> Invariant:
    """All rows of a step in one pass, and one by one, have the same gradient up to rounding.

    Args:
        found: By `ftkit.pipeline.selftest_gradients.measure_step`.
    """
    if found["together"] is None:
        return Invariant(name="batching", passed=None, detail="a step of this recipe has one row")
    rows = found["rows"]
    return _check_step("batching", found["together"], found, f"{rows} rows in 1 pass and in {rows}, without dropout")


def check_packing(found: dict[str, Any], result: dict[str, Any]) -> Invariant:
    """Packed, a step has the gradient of its rows one by one, up to rounding.

    Args:
        found: As for `check_batching`.
        result: Of a run: whether the recipe packs, and why not.
    """
    if not result["packing"]:
        return Invariant(name="packing", passed=None, detail=f"not packed: {result['packing_reason']}")
    if found["packed"] is None:
        return Invariant(name="packing", passed=None, detail="no two rows of the step fit into one pack")
    cut = f"{found['rows']} rows in {found['packs']} {_plural('pack', found['packs'])} and alone, without dropout"
    return _check_step("packing", found["packed"], found, cut)


def _check_step(name: str, apart: dict[str, Any], found: dict[str, Any], cut: str) -> Invariant:
    limits = LIMITS[found["compute"]]
    value = {key: apart[key] for key in ("gradient", "loss")}
    passed = value["gradient"] <= limits.gradient and value["loss"] <= limits.loss  # so that NaN fails
    exact = " and with exact products" if found["exact"] else ""
    worst = "" if passed else f"; most in {apart['worst']}"
    detail = (
        f"gradients apart by {value['gradient']:.2g} (limit {limits.gradient:g}), losses by {value['loss']:.2g} "
        f"(limit {limits.loss:g}): {cut}{exact}{worst}"
    )
    return Invariant(name=name, passed=passed, value=value, limit=asdict(limits), detail=detail)


def check_same(name: str, first: Trace, other: Trace, how: str) -> Invariant:
    """Two runs that may not differ in a byte.

    Args:
        name: Of the invariant.
        first: The run that neither was repeated nor interrupted.
        other: The other one.
        how: What was done to the other, in words.
    """
    found = first.differences(other)
    same = f"{len(first.files)} files of the last checkpoint and {len(first.lines)} lines of metrics are the same"
    return Invariant(
        name=name,
        passed=not found,
        value={"different": found, "files": first.files},
        limit={"different": []},
        detail=f"{how}: {'; '.join(found) if found else same}",
    )


def check_exports(run: Path, entries: Sequence[dict[str, Any]], *, steps: int) -> list[Invariant]:
    """Each export behaves like the model that was trained.

    Args:
        run: Folder of the run that wrote them.
        entries: Of its result.json.
        steps: That it trained for.
    """
    if not entries:
        return [Invariant(name="export", passed=None, detail="the recipe has no exports")]
    return [_check_export(run, entry, steps) for entry in entries]


def _check_export(run: Path, entry: dict[str, Any], steps: int) -> Invariant:
    name = f"export {entry['kind']}"
    if entry.get("refused"):
        return Invariant(name=name, passed=None, detail=f"refused: {entry['refused']}")
    checks = json.loads((run / entry["path"] / "verify.json").read_text(encoding="utf-8"))["checks"]
    failed = [check for check in checks if not check["passed"]]
    logits = next((check for check in checks if check["name"] == "logits_match_trained"), None)
    value, limit = (None, None) if logits is None else (logits["value"], logits["limit"])
    detail = "" if value is None or limit is None else _figures(value, limit)
    passed: bool | None = not failed
    if failed:
        faults = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
        if _too_little_to_see(failed, limit):
            passed = None
            faults = f"{steps} steps moved the model by less than the weights are rounded; give more --steps"
        detail = "; ".join(part for part in (faults, detail) if part)
    return Invariant(name=name, passed=passed, value=value, limit=limit, detail=detail)


def _too_little_to_see(failed: list[dict[str, Any]], limit: dict[str, float] | None) -> bool:
    """Whether all that failed is to be nearer to the trained model than to the base, in weights that were rounded.

    An export that is the untouched base is another matter, and so is one without rounding.
    """
    (first, *others) = failed
    if others or first["name"] != "differs_from_base" or limit is None:
        return False
    rounded = limit["max_abs_diff"] > EXPORT_LIMITS["float32"].max_abs_diff
    return rounded and first["value"]["mean_abs_diff_to_base"] > 0


def _figures(value: dict[str, float], limit: dict[str, float]) -> str:
    kl = value["kl_mean"]
    shown = "0" if math.isclose(kl, 0, abs_tol=1e-12) else f"{kl:.2g}"
    return (
        f"max |Δlogit| {value['max_abs_diff']:.2g} (limit {limit['max_abs_diff']:g}), mean KL {shown} "
        f"(limit {limit['kl_mean']:g}), top-1 agreement {100 * value['top1_agreement']:.1f} % "
        f"(limit {100 * limit['top1_agreement']:g} %)"
    )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
