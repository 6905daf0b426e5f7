"""From a block of JSONL to token arrays: what every data worker does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.data.arrays import ArrayBuilder, TokenArrays
from ftkit.data.chat import RenderFault
from ftkit.data.columns import Columns
from ftkit.data.encode import Encoder, EncoderSettings, Prepared
from ftkit.data.formats import FORMATS, RowFault
from ftkit.data.lint import lint
from ftkit.data.sample import Sample
from ftkit.data.sources import parse_line, place
from ftkit.errors import Problem


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """All that decides how rows of one file become tokens, in plain values.

    Attributes:
        encoder: Of the tokenizer and its template.
        format: One of `FORMATS`.
        columns: As in a recipe.
        group_by: Column whose equal values stay on one side of the split.
    """

    encoder: EncoderSettings
    format: str
    columns: Mapping[str, str] | None = None
    group_by: str | None = None


class BlockReader:
    """Reads, checks and tokenises blocks of one file.

    Args:
        settings: Of the file.
        encoder: For ``settings.encoder``; one can serve many files.
    """

    def __init__(self, settings: BlockSettings, encoder: Encoder) -> None:
        self.settings = settings
        self.encoder = encoder
        self.columns = Columns(settings.columns)
        self.format = FORMATS[settings.format]

    def read(self, lines: bytes, numbers: list[int], name: str, style: str) -> TokenArrays:
        """One block.

        Args:
            lines: One JSON object a line.
            numbers: Of the lines, in their file.
            name: Of the file, for messages.
            style: How its rows are numbered; see `ftkit.data.sources.place`.
        """
        builder = ArrayBuilder()
        result = TokenArrays(arrays={})
        # Not splitlines, which also splits at carriage returns: those are white space inside a row.
        split = zip(numbers, lines.split(b"\n")[:-1], strict=True)
        rows = [(number, self._prepared(line, place(name, style, number))) for number, line in split]
        with self.encoder.ahead(row for _, row in rows if isinstance(row, Prepared)):
            for number, row in rows:
                if isinstance(row, Problem):
                    result.problems.append(row)
                    continue
                sample = row.sample
                try:
                    encoded = self.encoder.finish(row)
                except RenderFault as fault:
                    result.problems.append(_problem(fault, sample.place))
                    continue
                builder.add(sample, number, encoded)
                for finding in lint(sample):
                    where = finding.where.removeprefix(sample.place)
                    result.findings.append((finding.code, number, where, finding.detail))
        result.arrays = builder.build()
        return result

    def _prepared(self, line: bytes, where: str) -> Prepared | Problem:
        """One row up to its tokens, or what is wrong with it."""
        try:
            return self.encoder.prepare(self.sample(line, where))
        except LineFault as fault:
            return fault.problem
        except (RowFault, RenderFault) as fault:
            return _problem(fault, where)

    def sample(self, line: bytes, where: str) -> Sample:
        """One row, checked.

        Raises:
            RowFault: Its fields are not what the format wants.
            LineFault: It is no JSON object.
        """
        row = parse_line(line, where)
        if isinstance(row, Problem):
            raise LineFault(row)
        group = self._group(row)
        return Sample(
            content=self.format.read(self.columns.apply(row)), kind=self.format.kind, place=where, group=group
        )

    def _group(self, row: Mapping[str, Any]) -> str | None:
        name = self.settings.group_by
        if name is None:
            return None
        if row.get(name) is None:
            raise RowFault(name, "is missing, and data.group_by names it", "Fill it in, or remove data.group_by.")
        return _group_name(row[name])


def _group_name(value: Any) -> str:
    """A group's name: customer 7 of JSON is customer "7" of CSV, where every cell is text, and 7.0 of a table."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, sort_keys=True)


def _problem(fault: RowFault | RenderFault, where: str) -> Problem:
    return Problem(where=f"{where}: {fault.field}" if fault.field else where, what=fault.what, fix=fault.fix)


class LineFault(ValueError):  # noqa: N818 - collected into a DataError, never shown by itself
    """A line that is no row."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem
