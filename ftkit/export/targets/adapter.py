"""The adapter alone, in the method's own published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.export.target import Target
from ftkit.export.trained import Trained, Written
from ftkit.files import write_json


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write the adapter; it names the base that plain PEFT on this machine can load."""
    del dtype  # adapters are small; they keep the float32 that they were trained in
    trained.method.save(trained.model, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = trained.base.peft_name
    config["revision"] = trained.base.revision if trained.base.peft_name == trained.base.name else None
    if "peft_type" in config:
        config["inference_mode"] = True
    write_json(path, _sorted_lists(config))
    return Written(dtype="float32")


def _sorted_lists(config: dict[str, Any]) -> dict[str, Any]:
    """PEFT keeps target names in a set, whose order differs from process to process."""
    return {
        key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
        for key, value in config.items()
    }


ADAPTER = Target(write=write, on_base=True, loads_with=("peft", "transformers", "torch", "safetensors"))
