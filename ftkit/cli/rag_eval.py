"""``ftkit rag eval``: how well an index answers, and which step loses what it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json
from ftkit.cli.rag_ask import Folder, Hops, Rerank, Reranked, Search, open_asked

Risk = Annotated[
    float | None,
    typer.Option(
        "--set-threshold",
        min=0.0,
        max=1.0,
        metavar="RISK",
        help="Keep a threshold: answer as much as this data allows with at most this share of wrong answers.",
    ),
]


def evaluate(
    folder: Folder,
    data: Annotated[Path, typer.Option("--data", help='JSON Lines of {"question", "answers", "document"}.')],
    generator: Annotated[
        str | None, typer.Option(help="A run, an export or a model instead of the index's own.")
    ] = None,
    mode: Search = None,
    passages: Annotated[int | None, typer.Option(min=0, help="How many the generator is given.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    hops: Hops = None,
    reranker: Rerank = None,
    reranked: Reranked = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")] = None,
    max_risk: Risk = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the JSON document here; answers are kept beside it as they come.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A saved evaluation: exit code 5 where what was right is wrong now.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with the figures and the risk curve.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask an index every question of a set; score the answers, and blame each wrong one on one step."""
    from ftkit.files import write_json
    from ftkit.notices import log, show_notices
    from ftkit.rag.canaries import compare_runs, read_baseline
    from ftkit.rag.evaluation import set_threshold
    from ftkit.rag.evaluation_page import write_evaluation_page
    from ftkit.rag.questions import read_questions

    show_notices(quiet=quiet)
    _require_index(folder, set_threshold=max_risk, baseline=baseline)
    questions = read_questions(data)[:limit]
    before = None if baseline is None else read_baseline(baseline)
    system = open_asked(
        folder,
        generator=generator,
        mode=None if mode is None else mode.value,
        passages=passages,
        max_new_tokens=max_new_tokens,
        hops=hops,
        reranker=reranker,
        reranked=reranked,
    )
    cache = None if save is None else save.with_name(f"{save.name}.answers.jsonl")
    outcome = _evaluated(system, questions, folder, cache, generator or "")
    if max_risk is not None:
        outcome, stored = set_threshold(outcome, system, data, max_risk=max_risk)
        log.info("%s: abstains below a confidence of %.4f", folder, stored.threshold)
    compared = None if before is None else compare_runs(before, outcome, system.index)
    document = outcome.to_dict() | ({} if compared is None else {"baseline": compared.to_dict()})
    if save is not None:
        write_json(save, document)
    if report is not None:
        write_evaluation_page(report, outcome)
    print_json(document) if as_json else _echo(outcome, compared)
    _require_unbroken(compared, as_json=as_json)


def _require_index(folder: Path, **asked: Any) -> None:
    """Of a hybrid, refuse what is a single index's alone."""
    from ftkit.hybrid.opening import is_hybrid_place, require_no_options

    if is_hybrid_place(folder):
        require_no_options(folder, asked)


def _evaluated(system: Any, questions: Any, folder: Path, cache: Path | None, generator: str) -> Any:
    from ftkit.hybrid.evaluation import evaluate_hybrid
    from ftkit.hybrid.opening import is_hybrid_place
    from ftkit.rag.evaluation import evaluate_rag

    if is_hybrid_place(folder):
        return evaluate_hybrid(system, questions, place=folder, cache=cache)
    return evaluate_rag(system, questions, cache=cache, generator=generator)


def _require_unbroken(compared: Any, *, as_json: bool) -> None:
    from ftkit.errors import VerificationError

    if compared is not None and compared.broken:
        if as_json:  # the one document says what broke
            raise typer.Exit(VerificationError.exit_code)
        raise VerificationError([_problem(one) for one in compared.broken])


def _problem(drift: Any) -> Any:
    from ftkit.errors import Problem

    now = "no answer" if drift.now is None else repr(drift.now)
    before = "no answer" if drift.before is None else repr(drift.before)
    return Problem(where=drift.id, what=f"was right with {before}, is wrong with {now} ({drift.blame})")


def _echo(outcome: Any, compared: Any) -> None:
    from ftkit.rag.evaluation_page import blame_rows, figure_rows

    for name, count in outcome.settings.get("routes", {}).items():
        typer.echo(f"answered by {name:14} {count:>8}")
    typer.echo(f"{len(outcome.outcomes)} questions{'':17}value  95 % interval")
    for name, value, between in figure_rows(outcome):
        typer.echo(f"{name:26} {value:>8}  {between}")
    typer.echo("")
    for name, count, percent, between in blame_rows(outcome):
        typer.echo(f"{name:26} {count:>8}  {percent:>5} %  ({between})")
    if outcome.threshold is not None:
        typer.echo(f"\nabstained below a confidence of {outcome.threshold:.4f}")
    if compared is not None:
        counts = ", ".join(
            f"{len(getattr(compared, name))} {name.replace('_', ' ')}"
            for name in ("broken", "mended", "changed", "cited_others", "stale")
        )
        typer.echo(f"\nof {compared.compared} questions of the baseline: {counts}")
        for one in compared.stale:
            typer.echo(f"stale: {one.id}: rested on a former text of {', '.join(one.documents)}")
