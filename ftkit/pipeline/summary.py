"""The outcome of a run in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.units import format_bytes, format_count, format_duration


def summary(folder: Path, result: dict[str, Any]) -> str:
    """What matters of result.json, for a terminal."""
    losses, lines = result["losses"], []
    if losses["validation_before"] is not None and losses["validation_after"] is not None:
        lines.append(f"validation loss  {losses['validation_before']:.4f} -> {losses['validation_after']:.4f}")
    for name, after in result["metrics"]["after"].items():
        lines.append(f"{name}  {result['metrics']['before'][name]:.1%} -> {after:.1%}")
    lines.append(
        f"{result['steps']} steps, {format_count(result['tokens'])} tokens in {format_duration(result['wall_s'])} "
        f"({result['tokens_per_s']:.0f} tokens/s), peak memory {format_bytes(result['peak_memory_bytes'])}"
    )
    for entry in result["exports"]:
        lines.append(f"export {entry['kind']}: {'verified' if entry['passed'] else 'FAILED'}  {entry['path']}")
    lines.append(f"report: {folder / 'report.html'}")
    return "\n".join(lines)
