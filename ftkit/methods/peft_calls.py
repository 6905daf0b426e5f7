"""What every call of PEFT shares."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from ftkit.methods.method import FIRST

ADAPTER = FIRST


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep back what PEFT warns of and handles: it would frighten people and tell them nothing to do."""
    with warnings.catch_warnings():
        for message in (
            "fan_in_fan_out is set to",  # GPT-2 keeps its weights transposed
            "You have requested `ensure_weight_tying`, but no tied",  # asked for in case there are any
            "Adapter .*: .* LoRA tensor",  # AdaLoRA may leave a layer without rank; PEFT takes it for a lost shard
            "The following rank_pattern keys did not match",  # AdaLoRA's, which name tensors, not layers
            "lora with eva initialization used with",  # advice for a start that ftkit computes itself
            "Using Rank-Stabilized LoRA with rank_pattern",  # of a conversion that ftkit does itself
        ):
            warnings.filterwarnings("ignore", message=message)
        # PEFT asks transformers under a name that version 6 will drop.
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield
