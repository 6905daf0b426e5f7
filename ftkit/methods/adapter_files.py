"""An adapter's files, looked at before PEFT opens them.

PEFT unpickles ``adapter_model.bin`` where there is no safetensors file, asks the hub for what a folder lacks, and
makes room for whatever sizes the config claims.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ftkit.errors import FtkitError, ModelError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
# Of what ftkit trains; others load further models that their config names (XLORA), or were never tried.
TYPES = (
    "LORA", "ADALORA", "VERA", "IA3", "OFT", "LOHA", "LOKR", "PREFIX_TUNING", "PROMPT_TUNING",
)  # fmt: skip
_SIZES = ("r", "init_r", "target_r", "num_virtual_tokens", "num_layers", "token_dim", "encoder_hidden_size")
_MODEST = 1024  # a size up to this needs no proof; some methods keep nothing of it in the file
_FIX = "Export the adapter again, or get it from where it was made."
# What PEFT, torch and safetensors raise for an adapter that is damaged or of another model.
_UNFIT = (
    OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError, ArithmeticError, ImportError,
    SafetensorError,
)  # fmt: skip


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json.

    Raises:
        ModelError: There is none, or it is no JSON object.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"{folder}: cannot be put onto this model: it has no {CONFIG}", fix="Name an adapter export."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", fix=_FIX) from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not a JSON object", fix=_FIX)
    return config


def check_adapter(folder: Path) -> None:
    """Refuse an adapter in PEFT's format that cannot be loaded safely.

    Raises:
        ModelError: Its weights are missing, pickled or damaged, it is of a type that ftkit does not load, or it
            claims sizes that its weights do not have.
    """
    config = read_adapter_config(folder)
    kind = config.get("peft_type")
    if kind not in TYPES:
        raise ModelError(
            f"{folder / CONFIG}: peft_type: {kind!r} is no type of adapter that ftkit loads",
            fix=f"Those are {', '.join(TYPES)}.",
        )
    weights = folder / WEIGHTS
    if not weights.is_file():
        if (folder / PICKLE).exists():
            raise ModelError(
                f"{folder}: has only pickled weights ({PICKLE}), which can run code when opened; ftkit reads "
                "safetensors",
                fix="Ask the publisher for safetensors.",
            )
        raise ModelError(f"{folder}: has no weights ({WEIGHTS})", fix=_FIX)
    try:
        with safe_open(weights, framework="pt") as file:  # reads the header alone
            names = list(file.keys())
            longest = max((length for name in names for length in file.get_slice(name).get_shape()), default=0)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{weights}: damaged: {error}", fix=_FIX) from None
    ranks = config.get("rank_pattern")
    claimed = {key: config.get(key) for key in _SIZES}
    claimed |= {f"rank_pattern.{key}": value for key, value in (ranks if isinstance(ranks, dict) else {}).items()}
    for key, value in claimed.items():
        if isinstance(value, int) and value > max(longest, _MODEST):
            raise ModelError(
                f"{folder / CONFIG}: {key}: {value} is more than any of its weights is long ({longest})", fix=_FIX
            )


@contextlib.contextmanager
def naming_adapter(folder: Path) -> Iterator[None]:
    """Let what PEFT says of an adapter that does not fit be an error that names the folder.

    Raises:
        ModelError: It does not fit.
    """
    try:
        yield
    except FtkitError:
        raise
    except _UNFIT as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder}: cannot be put onto this model: {first}", fix="Name an adapter export.") from None
