"""``data.streaming``: the first rows are prepared as ever, the others are read while training goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ftkit.data.block import BlockReader, BlockSettings
from ftkit.data.encode import Encoder, EncoderSettings
from ftkit.data.gather import Part, format_of
from ftkit.data.prepare import PreparedData, parts_of, prepare
from ftkit.data.sources import Block, DataFile, open_files, read_blocks
from ftkit.data.stored import StoredExamples
from ftkit.data.stream import Opened, StreamedExamples
from ftkit.errors import DataError, Problem
from ftkit.files import sha256_file, sha256_json
from ftkit.recipe import DataSection

_State = tuple[int, int, int, int] | None
WHOLE_BYTES = 1 << 30  # files up to this size are known by all their bytes
PARTS, PART_BYTES = 256, 1 << 20  # and larger ones by so many parts
FIRST_ROWS = 10_000  # of each file: what the report and the validation split are made of


def prepare_stream(
    settings: DataSection,
    encoder: EncoderSettings,
    *,
    length: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedData:
    """Prepare data that is never held as a whole.

    The report is about the first rows of each file. Rows that the split holds back are never trained on, wherever
    they stand; those among the first rows are what is validated on.

    Args:
        settings: The recipe's data section.
        encoder: Of the tokenizer, its chat template in its final form.
        length: Examples that training will take.
        seed: Of the order.
        progress: Called with bytes read and bytes in all.

    Raises:
        DataError: The first rows have faults, or a source cannot be streamed. A fault further on is raised when its
            row is reached.
    """
    _require_local(settings)
    parts = [part for part in parts_of(settings) if part.role == "train"]
    before = _states(parts)  # ahead of the first rows: they and the stream are of the same file
    whole = settings.model_copy(update={"near_duplicates": False})
    first = prepare(whole, encoder, seed=seed, progress=progress, first_rows=FIRST_ROWS)
    assert isinstance(first.train, StoredExamples) and isinstance(first.validation, StoredExamples)
    fraction = settings.validation if isinstance(settings.validation, (int, float)) else 0.0
    limit, held = int(fraction * 2**64), first.validation.group_keys if fraction else set()
    shared = Encoder(encoder)

    def open_sources() -> list[Opened]:
        return [opened for part in parts for opened in _open(part, shared, settings, before)]

    train = StreamedExamples(
        open_sources,
        length=length,
        is_held=lambda key: key < limit or key in held,
        max_length=settings.max_length,
        overflow=settings.overflow,
        seed=seed,
        first_lengths=np.asarray(first.train.lengths),
    )
    marks = [_fingerprint(file) for part in parts for file in open_files(part.source)]
    report = replace(first.report, digest=sha256_json([first.report.digest, marks]), streamed=True)
    return replace(first, train=train, report=report)


def _states(parts: Sequence[Part]) -> dict[Path, _State]:
    found: dict[Path, _State] = {}
    for part in parts:
        with contextlib.suppress(DataError):  # said with all the others when the first rows are read
            found |= {file.path: _state(file.path) for file in open_files(part.source)}
    return found


def _open(part: Part, encoder: Encoder, settings: DataSection, before: Mapping[Path, _State]) -> list[Opened]:
    """The files of a source, each from its beginning."""
    opened = []
    files = open_files(part.source)
    for file in files:
        _require_unchanged(file, before)
        form = format_of(file, part.source, encoder.settings)
        block = BlockSettings(
            encoder=encoder.settings, format=form, columns=part.source.columns, group_by=settings.group_by
        )
        opened.append((BlockReader(block, encoder), file.name, _unchanging(file, before)))
    return opened


def _unchanging(file: DataFile, before: Mapping[Path, _State]) -> Iterator[Block]:
    """The blocks of a file, as long as it is the one that the run began with."""
    for block in read_blocks(file):
        _require_unchanged(file, before)
        yield block


def _require_unchanged(file: DataFile, before: Mapping[Path, _State]) -> None:
    """What is added while training goes on would be trained on, and no resume could tell."""
    if _state(file.path) != before.get(file.path):
        raise DataError(
            f"{file.name}: has changed since training began",
            fix="Put it back as it was and resume, or train on a copy that nobody writes to.",
        )


def _fingerprint(file: DataFile) -> tuple[int, str]:
    """Size, and the SHA-256 of all bytes; of a large file, of parts from its beginning to its end.

    Rows beyond the first ones are in no report, and a resume that met others would not know. Reading all of a file
    that is streamed because of its size could take longer than the training.
    """
    try:
        size = file.path.stat().st_size
        if size <= WHOLE_BYTES:
            return size, sha256_file(file.path)
        digest, step = hashlib.sha256(), (size - PART_BYTES) // (PARTS - 1)
        with file.path.open("rb") as stream:
            for number in range(PARTS):
                stream.seek(number * step)
                digest.update(stream.read(PART_BYTES))
    except OSError as error:
        raise DataError(Problem(where=file.name, what=f"cannot be read: {error.strerror or error}")) from None
    return size, digest.hexdigest()


def _state(path: Path) -> _State:
    """Size, times of change (the second one cannot be set), and which file it is; None of a file that is gone."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _require_local(settings: DataSection) -> None:
    """Fetching a data set of the hub fills the disk that streaming is there to spare."""
    for source in settings.train:
        if not Path(source.path).exists():
            raise DataError(
                f"{source.path}: only files and folders on this machine can be streamed",
                fix="Fetch the files (compressed ones will do) and name their folder, or set data.streaming: false.",
            )
