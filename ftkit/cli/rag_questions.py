"""``ftkit rag questions``: questions made from an index's own documents."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.cli.rag_ask import Folder, Search


class Check(StrEnum):
    """How a question must lead back to its answer."""

    extract = "extract"
    likelihood = "likelihood"


def questions(
    folder: Folder,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="JSON Lines, with a report and all tries beside it."),
    ],
    count: Annotated[int, typer.Option(min=1, help="Questions wanted.")] = 200,
    generator: Annotated[
        str | None, typer.Option(help="A run, an export or a model instead of the index's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order in which answers are tried.")] = 0,
    tries: Annotated[int, typer.Option(min=1, help="Most tries for each question wanted.")] = 10,
    found_within: Annotated[
        int, typer.Option(min=1, help="Rank by which the search must find a question's passage.")
    ] = 10,
    check: Annotated[
        Check, typer.Option(help="The generator must extract the answer, or find it likelier.")
    ] = Check.extract,
    f1: Annotated[float, typer.Option(min=0.01, max=1.0, help="Least word F1 of what it extracts.")] = 0.6,
    margin: Annotated[float, typer.Option(min=0.0, help="Least gain of the likelihood, in nats a token.")] = 0.25,
    unanswerable: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.5, metavar="SHARE", help="Of all questions: that no document answers, made beside --count."
        ),
    ] = 0.0,
    mode: Search = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make questions from an index's passages, and keep those that lead back to their passage and answer."""
    from ftkit.notices import show_notices
    from ftkit.rag.opening import open_system
    from ftkit.rag.roundtrip import RoundTrip
    from ftkit.rag.synthetic import Making, make_questions, summary

    show_notices(quiet=quiet)
    system = open_system(folder, generator=generator, mode=None if mode is None else mode.value)
    trip = RoundTrip(found_within=found_within, check=check.value, f1=f1, margin=margin)
    making = Making(count=count, seed=seed, tries=tries, trip=trip, unanswerable=unanswerable)
    made = make_questions(system, making=making, output=output)
    if as_json:
        print_json({"file": str(output), **made.report})
        return
    report = made.report
    typer.echo(
        f"{output}: {report['kept']} of {report['wanted']} questions wanted, "
        f"from {report['documents']} of {report['documents_in_index']} documents"
    )
    typer.echo(f"  {summary(report)}; {report['not_tried']} spans not tried")
    if unanswerable:
        without = report["unanswerable"]
        why = "".join(f"; {count} {reason}" for reason, count in without["dropped"].items())
        typer.echo(f"  without an answer: {without['made']} of {without['wanted']} wanted{why}")
