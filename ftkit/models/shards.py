"""Checkpoints tensor by tensor: read without the others in memory, written without the whole in memory.

The file format is safetensors': eight bytes with the length of a JSON header, the header with dtype, shape and place
of each tensor, the tensors' bytes. Its own library maps files into memory and writes a file from tensors that are
all there at once; here a tensor is read when it is asked for and written when it comes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ftkit.files import write_json
from ftkit.models.weights import TORCH_NAMES, TensorPlace, tensor_places

DTYPES = {code: getattr(torch, name) for code, name in TORCH_NAMES.items()}
CODES = {name: code for code, name in TORCH_NAMES.items()}
MAX_SHARD_BYTES = 5_000_000_000


class Checkpoint:
    """The weights of a checked model folder, one at a time.

    Args:
        folder: See `ftkit.models.weights.check_model_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, TensorPlace] = tensor_places(folder)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, in the order of the files."""
        return {name: place.shape for name, place in self._places.items()}

    @property
    def is_float(self) -> bool:
        """Whether all weights are in a dtype that can be read here."""
        return all(place.dtype in DTYPES for place in self._places.values())

    def read(self, name: str) -> Tensor:
        """One tensor as it is stored.

        Raises:
            KeyError: There is none of this name.
        """
        place = self._places[name]
        buffer = bytearray(place.bytes)
        with place.path.open("rb") as stream:
            stream.seek(place.offset)
            if stream.readinto(buffer) != place.bytes:
                raise OSError(f"{place.path}: ends before {name} does")
        if not buffer:
            return torch.empty(place.shape, dtype=DTYPES[place.dtype])
        return torch.frombuffer(buffer, dtype=DTYPES[place.dtype]).reshape(place.shape)


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Which tensors go into which file.

    Attributes:
        dtype: Name of the torch dtype of all of them.
        files: For each file its name and the names and shapes of its tensors, in order.
    """

    dtype: str
    files: tuple[tuple[str, tuple[tuple[str, tuple[int, ...]], ...]], ...]

    @staticmethod
    def of(shapes: Sequence[tuple[str, tuple[int, ...]]], dtype: str, *, at_most: int = MAX_SHARD_BYTES) -> Shards:
        """Fill files in order.

        Args:
            shapes: Name and shape of every tensor.
            dtype: Of all of them.
            at_most: Bytes in a file; a larger tensor has one of its own.
        """
        width = getattr(torch, dtype).itemsize
        groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
        filled = 0
        for name, shape in shapes:
            size = width * math.prod(shape)
            if groups[-1] and filled + size > at_most:
                groups.append([])
                filled = 0
            groups[-1].append((name, shape))
            filled += size
        count = len(groups)
        names = [
            "model.safetensors" if count == 1 else f"model-{index:05d}-of-{count:05d}.safetensors"
            for index in range(1, count + 1)
        ]
        return Shards(dtype=dtype, files=tuple(zip(names, map(tuple, groups), strict=True)))

    def write(self, folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Write all files, and the index where there are several.

        Args:
            folder: Where to.
            tensors: Name and value, in the order of the files; each is let go of before the next is asked for.

        Raises:
            ValueError: One is missing, too many, or of another shape, or has values that are not finite.
        """
        coming = iter(tensors)
        for file, entries in self.files:
            self._write_file(folder / file, entries, coming)
        if (extra := next(coming, None)) is not None:
            raise ValueError(f"{extra[0]} has no place in the checkpoint")
        if len(self.files) > 1:
            self._write_index(folder)

    def _write_file(
        self, path: Path, entries: Sequence[tuple[str, tuple[int, ...]]], coming: Iterator[tuple[str, Tensor]]
    ) -> None:
        dtype = getattr(torch, self.dtype)
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in entries:
            begin, end = end, end + dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": CODES[self.dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
        with path.open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)))
            stream.write(text)
            for name, shape in entries:  # no zip, which would hold on to what it gave last
                found, value = next(coming, ("nothing", torch.empty(0)))
                if (found, tuple(value.shape)) != (name, shape):
                    raise ValueError(f"{found} {tuple(value.shape)} came where {name} {shape} was due")
                stored = value.detach().to(dtype).contiguous()
                if not bool(stored.isfinite().all()):
                    raise ValueError(f"{name} has values that are not finite")
                stream.write(memoryview(stored.reshape(-1).view(torch.uint8).numpy()))
                del value, stored  # before the next one is made

    def _write_index(self, folder: Path) -> None:
        width = getattr(torch, self.dtype).itemsize
        parameters = sum(math.prod(shape) for _, entries in self.files for _, shape in entries)
        write_json(
            folder / "model.safetensors.index.json",
            {
                "metadata": {"total_parameters": parameters, "total_size": width * parameters},
                "weight_map": {name: file for file, entries in self.files for name, _ in entries},
            },
        )
