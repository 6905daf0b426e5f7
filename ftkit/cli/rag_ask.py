"""``ftkit rag ask`` and ``search``: what an index answers."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, print_json

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index, a RAG run, a hybrid, or an export of one.")]
Question = Annotated[str, typer.Option("--question", "-q", help="What to ask.")]
SHOWN = 160  # characters of a passage in a terminal


class Mode(StrEnum):
    """How passages are searched for."""

    hybrid = "hybrid"
    dense = "dense"
    lexical = "lexical"


Search = Annotated[
    Mode | None,
    typer.Option("--mode", help="By vectors, by words, or both (as the index says)."),
]

Hops = Annotated[
    int | None,
    typer.Option(min=1, max=2, help="2: search again with what the first passage brings, for two-step questions."),
]

Rerank = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        help="A cross-encoder (folder or hub id) that orders the first hits anew; none: the search's own order.",
    ),
]
Reranked = Annotated[int | None, typer.Option(min=1, help="How many hits it orders.")]


def ask(
    folder: Folder,
    question: Question,
    generator: Annotated[
        str | None, typer.Option(help="A run, an export or a model instead of the index's own.")
    ] = None,
    mode: Search = None,
    passages: Annotated[int | None, typer.Option(min=0, help="How many the generator is given.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    hops: Hops = None,
    reranker: Rerank = None,
    reranked: Reranked = None,
    why: Annotated[bool, typer.Option("--why", help="Show scores, and the answer without the passages.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings only on stderr.")] = False,
) -> None:
    """Answer a question from an index's documents, with the passages that the answer rests on."""
    from ftkit.notices import show_notices

    show_notices(quiet=quiet)
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
    answer, reasons = system.explain(question) if why else (system.ask(question), None)
    if as_json:
        print_json(asdict(answer) | ({} if reasons is None else {"why": _why_document(reasons)}))
    else:
        _echo(answer, reasons)


def open_asked(folder: Path, *, max_new_tokens: int | None, reranker: Any, reranked: Any, **options: Any) -> Any:
    """An index or a hybrid with the options of the command line, as far as it has them."""
    from ftkit.hybrid.opening import is_hybrid_place, open_hybrid
    from ftkit.rag.opening import Reranking, open_system

    if is_hybrid_place(folder):
        asked = {**options, "reranker": reranker, "reranked": reranked}
        return open_hybrid(folder, max_new_tokens=max_new_tokens, asked=asked)
    reranking = Reranking(reranker=reranker, reranked=reranked)
    return open_system(folder, max_new_tokens=max_new_tokens, reranking=reranking, **options)


def search(
    folder: Folder,
    question: Question,
    mode: Search = None,
    count: Annotated[int, typer.Option("--passages", min=1, help="How many to show.")] = 5,
    reranker: Rerank = None,
    reranked: Reranked = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Warnings only on stderr.")] = False,
) -> None:
    """Show the passages that are found for a question; no generator is needed."""
    from ftkit.notices import show_notices
    from ftkit.rag.opening import Reranking, search_index

    show_notices(quiet=quiet)
    hits = search_index(
        folder,
        question,
        count=count,
        mode="hybrid" if mode is None else mode.value,
        reranking=Reranking(reranker=reranker, reranked=reranked),
    )
    if as_json:
        print_json([_hit(hit) for hit in hits])
        return
    for number, hit in enumerate(hits, start=1):
        typer.echo(f"[{number}] {_place(hit.passage.document, hit.passage.start, hit.passage.end)}  {hit.score:.4f}")
        typer.echo(f"    {_short(hit.passage.content)}")


def _why_document(why: Any) -> dict[str, Any]:
    return {"without": why.without, "given": why.given, "passages": [_hit(hit) for hit in why.hits]}


def _hit(hit: Any) -> dict[str, Any]:
    passage = asdict(hit.passage)
    del passage["id"]
    return passage | {"score": hit.score, "ranks": hit.ranks}


def _echo(answer: Any, why: Any) -> None:
    if answer.abstained and answer.confidence is not None:
        typer.echo(f"(no answer: its confidence, {answer.confidence:.3f}, is below the threshold of this index)")
    else:
        typer.echo("(no answer: the passages do not hold one)" if answer.abstained else answer.text)
    typer.echo("")
    if hasattr(answer, "member"):
        typer.echo(f"answered by {answer.member}")
    for number, cited in enumerate(answer.citations, start=1):
        typer.echo(f"[{number}] {_place(cited.document, cited.start, cited.end)}, version {cited.version}")
        typer.echo(f"    {_short(cited.text)}")
    if why is not None:
        typer.echo("\nwhy these passages:")
        for number, hit in enumerate(why.hits, start=1):
            ranks = ", ".join(f"{name} rank {rank}" for name, rank in hit.ranks.items())
            left_out = "" if number <= why.given else "  (no room for it)"
            typer.echo(f"[{number}] score {hit.score:.4f}  {ranks}{left_out}")
        typer.echo(f"without any passage the answer would be: {_short(why.without)}")
    took = answer.latency_s
    typer.echo(f"\nretrieved in {took.retrieve:.2f} s, answered in {took.generate:.2f} s")


def _place(document: str, start: int, end: int) -> str:
    return f"{document}:{start}-{end}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
