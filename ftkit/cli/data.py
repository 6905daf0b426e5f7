"""``ftkit data``: look at data before anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from ftkit.cli.data_output import print_lint, print_rows, print_stats
from ftkit.cli.output import Json, Overrides, Quiet, print_json


class DataView(Protocol):
    """What is needed of ``ftkit.pipeline.data_view.DataView``, whose floor is not imported before it is asked for."""

    @property
    def report(self) -> dict[str, Any]:
        """As data_report.json holds it."""

    @property
    def tokenizer(self) -> Any:
        """For the texts of tokens."""

    def examples(self, n: int, *, at: str | None = None) -> list[Any]:
        """The first ``n`` sequences, or those of the row at a place."""

    def findings(self) -> list[dict[str, str]]:
        """Everything suspicious."""


ACTIONS = ("stats", "show", "lint")

File = Annotated[
    str, typer.Argument(help="A data file or folder, or a recipe (its data section and model are used).")
]
Action = Annotated[
    str,
    typer.Argument(
        help="stats: counts, lengths, duplicates. show: rows as the model sees them, what counts marked. "
        "lint: what is legal but suspicious.",
        metavar="[stats|show|lint]",
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Whose tokenizer and chat template; smollm2-135m unless told.", show_default=False)
]
Template = Annotated[str | None, typer.Option(help="Chat template for a model that has none.", show_default=False)]
Format = Annotated[str | None, typer.Option("--format", help="How rows are laid out.", show_default="auto")]
Columns = Annotated[
    str | None,
    typer.Option(help="Where keys come from: '{prompt: question, completion: answer}'.", show_default=False),
]
MaxLength = Annotated[int | None, typer.Option(min=2, help="Longest example in tokens.", show_default=False)]
TrainOn = Annotated[str | None, typer.Option(help="assistant, last or all.", show_default=False)]
Rows = Annotated[int, typer.Option(min=1, help="show: how many rows; lint: how many of each kind.")]
Row = Annotated[
    str | None,
    typer.Option(help="show: this row, as messages name it (rows.jsonl:17), or its number.", show_default=False),
]
Tokens = Annotated[bool, typer.Option("--tokens", help="show: a bar between tokens.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write the JSON document here.", show_default=False)
]


def data(  # noqa: PLR0913 - a parameter an option
    file: File,
    action: Action = "stats",
    overrides: Overrides = None,
    model: Model = None,
    chat_template: Template = None,
    format_: Format = None,
    columns: Columns = None,
    max_length: MaxLength = None,
    train_on: TrainOn = None,
    rows: Rows = 3,
    row: Row = None,
    tokens: Tokens = False,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Counts and lengths of a data set, its rows as the model sees them, or what is suspicious about them."""
    from ftkit.errors import DataError, UsageError
    from ftkit.files import write_json
    from ftkit.nearest import did_you_mean

    changes = list(overrides or [])
    if "=" in action or action.startswith("~"):  # an override where the verb was left out
        action, changes = "stats", [action, *changes]
    if action not in ACTIONS:
        raise UsageError(f"{action!r} is not one of {', '.join(ACTIONS)}", fix=did_you_mean(action, ACTIONS))
    named = {"model.path": model, "model.chat_template": chat_template, "data.format": format_,
             "data.max_length": max_length, "data.train_on": train_on}  # fmt: skip
    # JSON is YAML, and keeps a path with a colon one text.
    changes += [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
    changes += [] if columns is None else [f"data.columns={columns}"]
    from ftkit.notices import show_notices
    from ftkit.pipeline.data_view import open_data

    show_notices(quiet=quiet)
    try:
        view = open_data(file, changes)
    except DataError as error:
        if output is not None:
            problems = [{"where": one.where, "what": one.what, "fix": one.fix} for one in error.problems]
            write_json(output, {"problems": problems})
        raise
    examples = view.examples(rows, at=row) if action == "show" else []
    document = _document(view, action, examples)
    if output is not None:
        write_json(output, document)
    if as_json:
        print_json(document)
    elif action == "stats":
        print_stats(document, file)
    elif action == "show":
        print_rows(document, tokens=tokens)
    else:
        print_lint(document, file, rows=rows)


def _document(view: DataView, action: str, examples: list[Any]) -> Any:
    """What ``--json`` prints: the report, the rows in pieces, or the findings with the meaning of their codes."""
    from ftkit.data.lint import CODES
    from ftkit.data.lint_dataset import DATASET_CODES
    from ftkit.data.show import pieces

    if action == "stats":
        return view.report
    if action == "lint":
        counts = view.report["lint"]["counts"]
        meanings = CODES | DATASET_CODES
        return {"rows": view.report["rows_in"], "counts": counts, "findings": view.findings(),
                "codes": {code: meanings[code] for code in counts if code in meanings}}  # fmt: skip

    def decode(ids: list[int]) -> str:
        return str(view.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return [
        {
            "place": example.place,
            "tokens": len(example.input_ids),
            "supervised_tokens": example.supervised_tokens,
            "pieces": [
                {"text": piece.text, "supervised": piece.supervised, "tokens": list(piece.tokens)}
                for piece in pieces(example, decode)
            ],
        }
        for example in examples
    ]
