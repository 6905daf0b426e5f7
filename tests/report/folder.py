"""A small finished run as files, whose figures the tests name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECIPE = """\
recipe: lora
model: {path: tiny-llama}
data: {max_length: 64}
export:
- {kind: adapter}
"""
METRICS = [
    {"step": 0, "validation_loss": 3.0},
    {"step": 1, "loss": 2.9, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens": 100, "wall_s": 1.0},
    {"step": 2, "loss": 2.0, "learning_rate": 5e-5, "grad_norm": 0.5, "tokens": 200, "wall_s": 2.0},
    {"step": 2, "validation_loss": 2.25, "tokens": 200, "wall_s": 4.0, "peak_memory_bytes": 3 * 2**20},
]
DATA = {
    "rows_in": 100, "trained": 80, "validation": 15, "dropped": {"longer than max_length": 5}, "truncated": 0,
    "tokens": 2000, "supervised_tokens": 500, "lengths": {"min": 7, "mean": 25.0, "p50": 24, "p95": 50, "max": 61},
    "duplicates": 0, "leaks": 0, "stop_tokens": ["<|im_end|>"], "chat_template": True, "digest": "d" * 64,
    "files": [{"path": "tickets.jsonl", "sha256": "ab" * 32, "format": "messages", "rows": 100}],
}  # fmt: skip
RESULT = {
    "recipe": "lora", "model": "tiny-llama", "steps": 2, "total_steps": 2,
    "losses": {"first_train": 2.9, "last_train": 2.0, "validation_before": 3.0, "validation_after": 2.25},
    "wall_s": 95.0, "tokens_per_s": 1234.0, "peak_memory_bytes": 3 * 2**30,
    "trainable_parameters": 5000, "total_parameters": 1_000_000, "versions": {"torch": "2.9.0"},
    "exports": [{"kind": "adapter", "path": "export/adapter", "dtype": "float32", "passed": True}],
    "metrics": {"before": {"exact_match": 0.0}, "after": {"exact_match": 0.725}},
}  # fmt: skip
SAMPLES = [{"prompt": "2+2?", "reference": "4", "before": "five", "after": " 4\n"}]
VERIFICATION = {
    "passed": True,
    "checks": [
        {"name": "files", "passed": True, "value": 9, "limit": None, "detail": ""},
        {
            "name": "logits_match_trained", "passed": True, "detail": "",
            "value": {"max_abs_diff": 0.00021, "top1_agreement": 1.0},
            "limit": {"max_abs_diff": 0.005, "top1_agreement": 0.995},
        },
    ],
}  # fmt: skip


def write_run(folder: Path, *, without: tuple[str, ...] = (), **changed: Any) -> Path:
    """Write the run, leaving out the files named and replacing ``data``, ``result``, ``samples``, ``verification``,
    ``metrics`` or ``recipe`` by what is given."""
    content = {
        "recipe.yaml": changed.get("recipe", RECIPE),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in changed.get("metrics", METRICS)),
        "data_report.json": json.dumps(changed.get("data", DATA)),
        "result.json": json.dumps(changed.get("result", RESULT)),
        "samples.json": json.dumps(changed.get("samples", SAMPLES)),
        "export/adapter/verify.json": json.dumps(changed.get("verification", VERIFICATION)),
    }
    for name, text in content.items():
        if name not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return folder
