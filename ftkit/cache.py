"""Where ftkit keeps what it may make again, and what it may fetch."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$FTKIT_CACHE``, else ``ftkit`` in the user's cache folder."""
    if chosen := os.environ.get("FTKIT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftkit"


def is_offline() -> bool:
    """Whether ``FTKIT_OFFLINE`` forbids every fetch."""
    return os.environ.get("FTKIT_OFFLINE", "") not in ("", "0")


def is_hub_offline() -> bool:
    """Whether the Hugging Face hub is closed, by its own variable or ours."""
    return is_offline() or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
