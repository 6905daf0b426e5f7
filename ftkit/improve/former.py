"""The former data, which candidates learn beside the log: what they are, and that nothing of the test is in them.

A run reports leaks between its rows and the test too, but of whole rows with their answers, and after its training.
Here a row is held against the questions, as rows of the log are, and before a round begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ftkit.data.block import BlockReader, BlockSettings, LineFault
from ftkit.data.encode import Encoder, EncoderSettings
from ftkit.data.formats.fields import RowFault
from ftkit.data.gather import Part, format_of
from ftkit.data.prepare import parts_of
from ftkit.data.sample import Sample
from ftkit.data.sources import DataFile, open_files, place, read_blocks
from ftkit.errors import DataError, Problem
from ftkit.files import sha256_file
from ftkit.improve.frozen import Frozen, user_text
from ftkit.improve.keys import Known
from ftkit.recipe.improve import FormerData

LISTED = 20  # rows at fault that are named one by one
LEARNT = ("train", "replay")


def former_digests(data: FormerData) -> list[Any]:
    """The content of all files that decide a candidate beside the log, wherever they stand.

    Raises:
        DataError: One is not there.
    """
    return [
        [part.role, *(sha256_file(file.path) for file in open_files(part.source))]
        for part in parts_of(data)
        if part.role != "evaluation"
    ]


def require_untested(data: FormerData, frozen: Frozen, settings: EncoderSettings) -> None:
    """Refuse former data that hold a question of the test, as it is, nearly, or within a longer text.

    Args:
        data: The former data, and general data mixed in.
        frozen: The test.
        settings: How rows are read.

    Raises:
        DataError: With the places of the first rows, and how many there are; or a row cannot be read.
    """
    known = Known(text for one in frozen.questions for text in one.asks)
    found: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for part in parts_of(data):
        if part.role not in LEARNT:
            continue
        for file in open_files(part.source):
            for row in _rows(part, file, settings):
                if isinstance(row, Problem):
                    problems.append(row)
                elif (likeness := known.like(_said(row))) is not None:
                    found.append((row.place, likeness))
    if problems:
        raise DataError(problems)
    if not found:
        return
    counts = Counter(likeness for _, likeness in found)
    raise DataError([
        Problem(
            what=f"{len(found):,} rows of the former data hold questions of the frozen test ({counts['exact']:,} as "
            f"they are, {counts['near']:,} nearly or within a longer text): to know them proves nothing",
            fix="Take those rows out of tune.data, or begin with another test in another output.",
        ),
        *(
            Problem(where=where, what="is in the frozen test" if likeness == "exact" else "is near the frozen test")
            for where, likeness in found[:LISTED]
        ),
    ])  # fmt: skip


def _rows(part: Part, file: DataFile, settings: EncoderSettings) -> Iterator[Sample | Problem]:
    """The rows of a file, or what is wrong with them."""
    source = part.source
    form = BlockSettings(encoder=settings, format=format_of(file, source, settings), columns=source.columns)
    reader = BlockReader(form, Encoder(settings))
    for block in read_blocks(file):
        yield from block.problems
        for number, line in zip(block.numbers, block.lines.split(b"\n")[:-1], strict=True):
            where = place(file.name, block.style, number)
            try:
                yield reader.sample(line, where)
            except LineFault as fault:
                yield fault.problem
            except RowFault as fault:
                yield Problem(where=f"{where}: {fault.field}", what=fault.what, fix=fault.fix)


def _said(row: Sample) -> list[str]:
    return [*(turn.content for turn in row.turns), user_text([turn.message for turn in row.turns])]
