"""Whether a folder holds usable weights, learnt from file headers before anything heavy is loaded."""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError, Problem

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_DIMENSIONS = 64  # torch's limit; a shape of thousands would take hours to multiply
DTYPE_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "C64": 64, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
# Where a config can name a repository of the hub whose kernels are to be fetched and run.
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Refuse a folder that cannot be loaded safely and completely.

    Returns:
        The parsed ``config.json``.

    Raises:
        ModelError: No config, code of its own, weights missing, pickled, truncated or damaged.
    """
    config = _read_config(folder)
    if "auto_map" in config:
        raise ModelError(
            f"{folder}: wants to run its own code (auto_map in config.json), which ftkit never does",
            fix="Use a checkpoint of an architecture that transformers has built in.",
        )
    for key in _KERNELS:
        if config.get(key) is not None and "/" in str(config[key]):
            raise ModelError(
                f"{folder}: wants to run code from the hub ({key} in config.json is {config[key]!r}), which ftkit "
                "never does",
                fix=f"Remove {key} from its config.json.",
            )
    shards = weight_files(folder)
    problems = [problem for shard in shards if (problem := _header_problem(shard))]
    if problems:
        raise ModelError(problems)
    _require_possible_layers(folder, config, tensors=sum(len(_read_header(shard)) for shard in shards))
    return config


def _require_possible_layers(folder: Path, config: dict[str, Any], *, tensors: int) -> None:
    """Refuse more layers than there are tensors, before anybody begins to build them."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        for key in _LAYERS:
            if isinstance(part.get(key), int) and part[key] > tensors:
                raise ModelError(
                    f"{folder}: config.json says {key}: {part[key]}, and there are {tensors} tensors in all",
                    fix="Fetch the model again.",
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights.

    Raises:
        ModelError: There are none, only pickles, or a shard named by the index is missing.
    """
    # In this order, as transformers loads them: what is checked must be what is loaded.
    if (single := folder / "model.safetensors").is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            names = []
        if not names or not all(isinstance(name, str) for name in names):
            raise ModelError(f"{index}: is not a readable index of shards", fix="Fetch the model again.")
        # The index is somebody else's file: take names in this folder only.
        missing = [name for name in names if not _is_shard(folder, name)]
        if missing:
            named = ", ".join(name if name.isprintable() else ascii(name) for name in missing[:5])
            raise ModelError(
                f"{folder}: shards are missing: {named}",
                fix="Fetch the model again. Shards are .safetensors files beside their index.",
            )
        return [folder / name for name in names]
    pickles = [path.name for pattern in PICKLE_PATTERNS for path in sorted(folder.glob(pattern))]
    if pickles:
        raise ModelError(
            f"{folder}: has only pickled weights ({pickles[0]}), which can run code when opened; ftkit reads "
            "safetensors",
            fix="Ask the publisher for safetensors, or convert them on a machine that you can afford to lose.",
        )
    raise ModelError(
        f"{folder}: has no weights (model.safetensors)", fix="Name a complete checkpoint folder, or fetch it again."
    )


def _is_shard(folder: Path, name: str) -> bool:
    """Whether a name from an index is that of a safetensors file of this very folder."""
    # By its suffix transformers chooses how to open it, and any other would be unpickled.
    if Path(name).name != name or not name.endswith(".safetensors"):
        return False
    return os.path.isfile(folder / name)  # noqa: PTH113 - Path.is_file raises where a name is too long to be one


def tensor_dtypes(folder: Path) -> dict[str, int]:
    """How many parameters of each safetensors dtype a checked folder holds."""
    counts: dict[str, int] = {}
    for shard in weight_files(folder):
        for entry in _read_header(shard).values():
            size = 1
            for length in entry["shape"]:
                size *= length
            counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + size
    return counts


@dataclass(frozen=True, kw_only=True)
class TensorPlace:
    """Where a tensor's bytes are.

    Attributes:
        path: The file.
        offset: Of its first byte.
        bytes: How many there are.
        dtype: safetensors' name of it.
        shape: Of the tensor.
    """

    path: Path
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(path: Path) -> set[str]:
    """Names of the tensors in one safetensors file, from its header."""
    return set(_read_header(path))


def tensor_places(folder: Path) -> dict[str, TensorPlace]:
    """Every tensor of a checked folder, in the order of its files."""
    found = {}
    for shard in weight_files(folder):
        with shard.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
        for name, entry in _read_header(shard).items():
            begin, end = entry["data_offsets"]
            found[name] = TensorPlace(
                path=shard, offset=8 + length + begin, bytes=end - begin, dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
            )  # fmt: skip
    return found


def checkpoint_dtype(folder: Path) -> str:
    """The torch name of the dtype that most parameters of a checkpoint have (float32 if it is an unusual one)."""
    counts = tensor_dtypes(folder)
    return TORCH_NAMES.get(max(counts, key=counts.__getitem__), "float32")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    # Also beside a config.json: transformers would then load whatever base the adapter names, unchecked.
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: is an adapter, not a base model", fix="Name the base model that it was trained on."
        )
    if not path.is_file():
        raise ModelError(f"{folder}: has no config.json, so it is not a model", fix="Name a checkpoint folder.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path}: is not readable JSON ({error})", fix="Fetch the model again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is not a JSON object", fix="Fetch the model again.")
    return config


def _read_header(path: Path) -> dict[str, dict[str, Any]]:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        header = json.loads(stream.read(length), object_pairs_hook=_distinct)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError("its __metadata__ is not a mapping of texts")
    return header


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each key once: of two tensors with one name, readers differ in which they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in its header")
    return found


def _header_problem(path: Path) -> Problem | None:
    """Compare what the header promises with what the file holds."""
    size = path.stat().st_size
    try:
        header = _read_header(path)
        with path.open("rb") as stream:
            data_bytes = size - 8 - struct.unpack("<Q", stream.read(8))[0]
        needed = 0
        if not header:
            raise ValueError("it holds no weights")
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            needed = _end_of(name, entry, begin=needed)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        return Problem(where=str(path), what=f"damaged: {error}", fix="Fetch the model again.")
    if needed != data_bytes:
        return Problem(
            where=str(path),
            what=f"damaged or truncated: {data_bytes} bytes of weights, the header promises {needed}",
            fix="Fetch the model again.",
        )
    return None


def _end_of(name: str, entry: dict[str, Any], *, begin: int) -> int:
    """Where a tensor ends that must begin at ``begin``.

    Raises:
        ValueError: It does not, or its entry is not what the format allows.
    """
    name.encode()  # half a surrogate pair, which JSON can spell, is no text
    offsets, shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"{name} has the dtype {dtype!r}, which safetensors does not have")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"{name} has no shape of at most {MAX_DIMENSIONS} dimensions")
    # bool is an int to Python, and so is 4.0 == 4; neither is a size.
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, *offsets)):
        raise ValueError(f"{name} has sizes or offsets that are not whole numbers below 2**63")
    start, end = offsets
    if start != begin or end < start or 8 * (end - start) != DTYPE_BITS[dtype] * math.prod(shape):
        raise ValueError(f"{name} has impossible offsets")
    return int(end)
