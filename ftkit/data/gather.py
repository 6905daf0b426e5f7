"""All sources of a recipe into token stores, every fault of every row found in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftkit.data.block import BlockSettings
from ftkit.data.columns import Columns
from ftkit.data.encode import EncoderSettings
from ftkit.data.formats import FORMATS, RowFault, detect_format
from ftkit.data.pool import Pool
from ftkit.data.report import SourceFile
from ftkit.data.rows import Role
from ftkit.data.sources import Block, DataFile, Source, open_files, parse_line, place, read_blocks
from ftkit.data.store import StoreWriter
from ftkit.data.stored import NamedStore
from ftkit.data.token_cache import NotWorthKeepingError, cached, temporary, token_key
from ftkit.errors import DataError, Problem
from ftkit.files import sha256_file

MOST_PROBLEMS = 100_000  # kept; a wrong column name makes every row of a large file wrong
GROUP_BYTES = 32 << 20  # small files share a store: a folder of 10,000 texts is one entry of the cache, not 10,000
SMALL_BYTES = 3 << 20  # done before worker processes have started


@dataclass(frozen=True, kw_only=True)
class Part:
    """One source, and what its rows are for.

    Attributes:
        role: What becomes of them.
        source: Where they are.
    """

    role: Role
    source: Source


@dataclass(kw_only=True)
class Gathered:
    """What was found.

    Attributes:
        stores: In the order of the sources.
        files: Every file that was read.
        problems: In file order; at most `MOST_PROBLEMS`, and ``unlisted`` more.
    """

    stores: list[NamedStore] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlisted: int = 0

    def note(self, problems: Sequence[Problem]) -> None:
        """Remember problems, as far as memory allows."""
        room = MOST_PROBLEMS - len(self.problems)
        self.problems += problems[:room]
        self.unlisted += max(0, len(problems) - room)


def gather(
    parts: Sequence[Part],
    encoder: EncoderSettings,
    *,
    group_by: str | None,
    workers: int,
    progress: Callable[[int, int], None],
    first_rows: int | None = None,
) -> Gathered:
    """Read, check and tokenise every source, or take it from the cache.

    Args:
        parts: The sources.
        encoder: Of the tokenizer and its template.
        group_by: Column whose equal values stay on one side of the split.
        workers: Processes; 0 for none besides this one.
        progress: Called with bytes done and bytes in all.
        first_rows: Read only about so many rows of each training file, and keep nothing of them in the cache.
    """
    found = Gathered()
    listed: list[tuple[int, DataFile]] = []
    for index, part in enumerate(parts):
        try:
            listed += [(index, file) for file in open_files(part.source)]
        except DataError as error:
            found.note(error.problems)
    total = sum(_size(file.path) for _, file in listed)
    meter = _Meter(total, progress)
    with Pool(encoder, workers) as pool:
        for index, files, form in _groups(parts, listed, encoder, found):
            source = parts[index].source
            # A column that keeps the training rows' groups together means nothing in a file that is never split.
            grouped = group_by if parts[index].role == "train" else None
            settings = BlockSettings(encoder=encoder, format=form, columns=source.columns, group_by=grouped)
            limit = first_rows if parts[index].role == "train" else None
            _read_group(files, settings, pool, index, found, meter, first_rows=limit)
    return found


def _groups(
    parts: Sequence[Part], listed: Sequence[tuple[int, DataFile]], encoder: EncoderSettings, found: Gathered
) -> Iterator[tuple[int, list[DataFile], str]]:
    """Files that share a store: of one source and format, next to each other, and small together."""
    group: list[DataFile] = []
    current: tuple[int, str] = (-1, "")
    size = 0
    for index, file in listed:
        try:
            form = format_of(file, parts[index].source, encoder)
        except DataError as error:
            found.note(error.problems)
            continue
        bytes_ = _size(file.path)
        if group and ((index, form) != current or size + bytes_ > GROUP_BYTES):
            yield current[0], group, current[1]
            group, size = [], 0
        group.append(file)
        current, size = (index, form), size + bytes_
    if group:
        yield current[0], group, current[1]


def format_of(file: DataFile, source: Source, encoder: EncoderSettings) -> str:
    """The format that a file's first readable row has; or the one that was named.

    Raises:
        DataError: None or several fit, the file has no rows, or conversations meet a tokenizer without a template.
    """
    columns = Columns(source.columns)
    any_row = False
    for block in itertools.islice(read_blocks(file, block_bytes=1 << 16), 64):
        any_row = any_row or bool(block.problems)
        for number, line in zip(block.numbers, block.lines.split(b"\n")[:-1], strict=True):
            any_row = True
            where = place(file.name, block.style, number)
            row = parse_line(line, where)
            if isinstance(row, Problem):
                continue
            try:
                form = detect_format(columns.apply(row), where) if source.format == "auto" else source.format
            except RowFault:
                continue
            if FORMATS[form].kind == "chat" and encoder.chat_template is None:
                raise DataError(_no_template(where, encoder.template_fix))
            return form
    if not any_row:
        raise DataError(Problem(where=file.name, what="has no rows", fix="Name a file with data."))
    # Nothing readable: any format reports each row's own fault.
    return "text" if source.format == "auto" else source.format


def _no_template(where: str, fix: str) -> Problem:
    return Problem(
        where=where,
        what="is a conversation, and this model's tokenizer has no chat template",
        fix=fix,
    )


def _read_group(
    files: list[DataFile],
    settings: BlockSettings,
    pool: Pool,
    index: int,
    found: Gathered,
    meter: _Meter,
    *,
    first_rows: int | None,
) -> None:
    before = {file: facts for file in files if (facts := _facts(file, found, digest=first_rows is None)) is not None}
    if not before:
        return
    files = list(before)
    size = sum(facts.size for facts in before.values())

    def build(writer: StoreWriter) -> dict[str, object]:
        noted, faults = Gathered(), 0  # of this try: where the disk of the cache is full, there is another
        rows, styles = [], []
        for number, file in enumerate(files):
            done, style = 0, "line"
            blocks = read_blocks(file) if first_rows is None else _first(read_blocks(file), first_rows)
            for block, arrays in pool.read(blocks, settings, file.name, small=size < SMALL_BYTES):
                problems = [*block.problems, *arrays.problems]
                noted.note(problems)
                faults += len(problems)
                done += len(arrays.arrays["rows"])
                style = block.style
                writer.append(arrays, file=number)
                meter.add(len(block.lines), most=before[file].size)
            rows.append(done)
            styles.append(style)
            meter.next(before[file].size)
        _require_unchanged(before)
        if faults:
            found.note(noted.problems)
            found.unlisted += noted.unlisted
            raise NotWorthKeepingError
        return {"rows_of_files": rows, "styles": styles, "format": settings.format}

    read = [(before[file].digest, f"{file.kind}|{file.compression}|{file.part}") for file in files]
    try:
        store = cached(token_key(read, settings), build) if first_rows is None else temporary(build)
    except NotWorthKeepingError:
        return
    meter.reach(size)
    names = tuple(file.name for file in files)
    found.stores.append(NamedStore(store=store, names=names, styles=tuple(store.facts["styles"]), source=index))
    for name, (digest, _), rows in zip(names, read, store.facts["rows_of_files"], strict=True):
        found.files.append(SourceFile(path=name, sha256=digest, format=settings.format, rows=rows))


def _first(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """Blocks until so many rows are read."""
    for block in blocks:
        yield block
        rows -= len(block.numbers) + len(block.problems)
        if rows <= 0:
            return


@dataclass(frozen=True)
class _Facts:
    """A file before it is read.

    Attributes:
        state: What the system says of it: size, times of change (the second one cannot be set), which file it is.
        digest: SHA-256 of its bytes; empty where nothing is filed under it.
    """

    state: tuple[int, int, int, int]
    digest: str

    @property
    def size(self) -> int:
        return self.state[0]


def _facts(file: DataFile, found: Gathered, *, digest: bool) -> _Facts | None:
    try:
        return _Facts(_state(file.path), sha256_file(file.path) if digest else "")
    except OSError as error:
        found.note([Problem(where=file.name, what=f"cannot be read: {error.strerror or error}")])
        return None


def _require_unchanged(before: dict[DataFile, _Facts]) -> None:
    for file, facts in before.items():
        try:
            unchanged = _state(file.path) == facts.state
        except OSError:
            unchanged = False
        if not unchanged:
            raise DataError(f"{file.name}: changed while it was being read", fix="Try again when it is complete.")


def _state(path: Path) -> tuple[int, int, int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _size(path: Path) -> int:
    """For the meter; a file that is gone by now is reported when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Meter:
    """Bytes done, as far as compressed files let one tell."""

    def __init__(self, total: int, show: Callable[[int, int], None]) -> None:
        self.total, self.show = total, show
        self.before = self.within = self.group = 0

    def add(self, bytes_: int, *, most: int) -> None:
        """Some bytes of the current file, which has ``most``."""
        self.within = min(most, self.within + bytes_)
        self.show(self.before + self.within, self.total)

    def next(self, bytes_: int) -> None:
        """The current file is done."""
        self.before, self.within, self.group = self.before + bytes_, 0, self.group + bytes_
        self.show(self.before, self.total)

    def reach(self, bytes_: int) -> None:
        """A group of files is done, read or found in the cache."""
        self.before, self.group = self.before + bytes_ - self.group, 0
        self.show(self.before, self.total)
