"""``data.columns``: a format's keys out of a file's own columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftkit.data.column_template import ColumnTemplate, TemplateFault
from ftkit.data.formats import FORMATS, RowFault
from ftkit.errors import Problem, RecipeError
from ftkit.nearest import did_you_mean, nearest


class Columns:
    """What ``data.columns`` says, checked once and applied to every row.

    Each key is a field of a format; each value is the name of a column, or a small Jinja template over the row's
    columns, recognised by ``{{`` or ``{%``. Columns that a value reads are used up; all others are kept, except that
    none stands in for a key of the mapping.

    Args:
        mapping: The recipe's own; None and an empty one change nothing.

    Raises:
        RecipeError: A key belongs to no format, or a template is none.
    """

    def __init__(self, mapping: Mapping[str, str] | None) -> None:
        known = list(dict.fromkeys(key for form in FORMATS.values() for key in (*form.keys, *form.optional)))
        problems = []
        self._names: dict[str, str] = {}
        self._templates: dict[str, ColumnTemplate] = {}
        for key, value in (mapping or {}).items():
            where = f"data.columns.{key}"
            if key not in known:
                fix = did_you_mean(key, known, what="Fields of the formats")
                problems.append(Problem(where=where, what="is a field of no format", fix=fix))
            elif "{{" in value or "{%" in value:
                try:
                    self._templates[key] = ColumnTemplate(value)
                except TemplateFault as fault:
                    problems.append(Problem(where=where, what=fault.what, fix=fault.fix))
            else:
                self._names[key] = value
        if problems:
            raise RecipeError(problems)
        read = {name for template in self._templates.values() for name in template.columns}
        self._replaced = {*self._names, *self._names.values(), *self._templates, *read}

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with a format's keys.

        Raises:
            RowFault: The row lacks a column, or a template fails on it.
        """
        if not self._replaced:
            return dict(row)
        made = {key: value for key, value in row.items() if key not in self._replaced}
        for key, name in self._names.items():
            if name not in row:
                raise RowFault(key, f"comes from the column {name!r}, which this row lacks", _columns_of(row, name))
            made[key] = row[name]
        for key, template in self._templates.items():
            try:
                made[key] = template.render(row)
            except TemplateFault as fault:
                raise RowFault(key, fault.what, fault.fix) from None
        return made


def _columns_of(row: Mapping[str, Any], wanted: str) -> str:
    near = nearest(wanted, map(str, row))
    return f"Did you mean {near!r}?" if near else f"Its columns: {', '.join(map(str, row))}."
