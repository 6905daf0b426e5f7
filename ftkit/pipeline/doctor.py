"""What this machine offers to ftkit."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from typing import Any

import torch

from ftkit.cache import cache_folder, is_hub_offline, is_offline
from ftkit.export.converter import fetch_command, wheel_path
from ftkit.export.manifest import library_versions
from ftkit.machine import available_memory_bytes, cpu_has_fast_bfloat16
from ftkit.models.find import known_folder
from ftkit.models.known import KNOWN_MODELS
from ftkit.units import format_bytes

OPTIONAL_PARTS = {
    "bitsandbytes": "QLoRA: pip install 'ftkit[qlora]'",
    "fastapi": "serving: pip install 'ftkit[serve]'",
    "llama_cpp": "GGUF: pip install 'ftkit[gguf]'",
    "nbclient": "notebooks: pip install 'ftkit[notebook]'",
}


def examine() -> dict[str, dict[str, Any]]:
    """Versions, devices, caches, models, and optional parts with the way to get each."""
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {
        "versions": {"python": platform.python_version(), **library_versions()},
        "devices": {
            "cpu threads": torch.get_num_threads(),
            "cpu bfloat16": cpu_has_fast_bfloat16(),
            "memory free": format_bytes(available_memory_bytes()),
            "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        },
        "places": {
            "cache": str(cache),
            "disk free": format_bytes(shutil.disk_usage(existing).free),
            "offline": is_offline(),
            "hub closed": is_hub_offline(),
            "hub": os.environ.get("HF_ENDPOINT", "default"),
        },
        "models": {
            name: str(known_folder(model)) if known_folder(model).is_dir() else f"ftkit models pull {name}"
            for name, model in KNOWN_MODELS.items()
        },
        "optional parts": {
            name: "installed" if importlib.util.find_spec(name) else f"missing; {how}"
            for name, how in OPTIONAL_PARTS.items()
        }
        | {
            "GGUF converter": str(wheel) if (wheel := wheel_path()).is_file() else f"missing; GGUF: {fetch_command()}"
        },
    }
