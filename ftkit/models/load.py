"""Base models into memory, complete or not at all."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers import logging as transformers_logging

from ftkit.errors import ModelError

# What transformers and safetensors raise for a checkpoint that is damaged, foreign, or not what its config says.
UNLOADABLE = (
    OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError, ArithmeticError, ImportError,
    SafetensorError, StrictDataclassError,
)  # fmt: skip


def load_model(
    folder: Path, *, dtype: torch.dtype, device: torch.device, quantization_config: Any = None
) -> PreTrainedModel:
    """Load a causal language model without network or foreign code.

    Args:
        folder: A checked model folder (see `ftkit.models.find.find_base`).
        dtype: Of the weights in memory.
        device: Where they go.
        quantization_config: From the tuning method; None for the weights as the checkpoint has them.

    Raises:
        ModelError: The checkpoint does not fit its own config. transformers would fill the gaps with random
            numbers and go on.
    """
    # Even None, given as an argument, would hide the quantization that a checkpoint's own config names.
    quantised = (
        {}
        if quantization_config is None
        else {"device_map": {"": device}, "quantization_config": quantization_config}
    )
    with quiet_transformers():
        try:
            model, facts = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **quantised,
            )
        except UNLOADABLE as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be loaded: {first}", fix="Fetch the model again.") from None
    missing = sorted(facts["missing_keys"])
    mismatched = sorted(str(key[0]) for key in facts["mismatched_keys"])
    if missing or mismatched:
        named = ", ".join((missing + mismatched)[:5])
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing and {len(mismatched)} have the wrong shape ({named})",
            fix="The checkpoint is incomplete or belongs to another config. Fetch it again.",
        )
    if quantization_config is None:
        model = model.to(device)
    model.config.use_cache = True
    return model.eval()


@contextlib.contextmanager
def quiet_transformers() -> Any:
    """Keep transformers' progress bars and advice out of our output; its errors still rise."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
