"""``ftkit rag index``, ``add``, ``remove``, ``rollback``, ``show``: what an index holds."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ftkit.cli.output import Json, Quiet, print_json

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index.")]
Sources = Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files and folders.")]
Skip = Annotated[bool, typer.Option("--skip-unreadable", help="Leave out what cannot be read, and say what it was.")]


class Words(StrEnum):
    """How the lexical index cuts text."""

    stems = "stems"
    words = "words"
    trigrams = "trigrams"


def index(
    sources: Sources,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The index, new or to be extended.")],
    encoder: Annotated[str | None, typer.Option(help="A known encoder, a hub id or a folder.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="The model that answers: a run, an export or a model.")
    ] = None,
    passage_tokens: Annotated[
        int | None, typer.Option(min=8, help="Longest passage, in the encoder's tokens.")
    ] = None,
    overlap_tokens: Annotated[
        int | None, typer.Option(min=0, help="What a passage repeats of the one before.")
    ] = None,
    words: Annotated[
        Words | None,
        typer.Option(help="How word search cuts text: English stems, words, or three letters (Chinese)."),
    ] = None,
    skip_unreadable: Skip = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build or extend an index from files and folders."""
    from ftkit.notices import show_notices
    from ftkit.rag.opening import open_or_create

    show_notices(quiet=quiet)
    corpus = _read(sources, skip=skip_unreadable)
    opened, encoders = open_or_create(
        output,
        encoder=encoder,
        generator=generator,
        passage_tokens=passage_tokens,
        overlap_tokens=overlap_tokens,
        words=None if words is None else words.value,
    )
    _print(opened, opened.add(corpus.documents, encoders), corpus, as_json=as_json)


def add(
    folder: Folder, sources: Sources, skip_unreadable: Skip = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Put new or changed documents into an index; the next answer knows them."""
    from ftkit.notices import show_notices
    from ftkit.rag.index import Index
    from ftkit.rag.opening import index_folder, open_encoders

    show_notices(quiet=quiet)
    opened = Index(index_folder(folder))
    corpus = _read(sources, skip=skip_unreadable)
    _print(opened, opened.add(corpus.documents, open_encoders(opened.folder)), corpus, as_json=as_json)


def remove(
    folder: Folder,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Documents, as `ftkit rag show DIR` names them.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take documents out of an index; `rollback` can put them back."""
    from ftkit.notices import show_notices
    from ftkit.rag.index import Index
    from ftkit.rag.opening import index_folder

    show_notices(quiet=quiet)
    opened = Index(index_folder(folder))
    _print(opened, opened.remove(ids), None, as_json=as_json)


def rollback(
    folder: Folder,
    version: Annotated[int, typer.Argument(min=0, help="As answers and `ftkit rag show DIR` print it.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go back to a former version of an index, or forward again."""
    from ftkit.notices import show_notices
    from ftkit.rag.index import Index
    from ftkit.rag.opening import index_folder

    show_notices(quiet=quiet)
    opened = Index(index_folder(folder))
    _print(opened, opened.rollback(version), None, as_json=as_json)


def show(
    folder: Folder,
    document: Annotated[str | None, typer.Argument(metavar="[ID]", help="A document, to print its text.")] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Of the index, for a document's text.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Read everything and hold it to what was written.")] = False,
    as_json: Json = False,
) -> None:
    """Show an index's documents and versions, or one document's stored text."""
    from ftkit.rag.index import Index
    from ftkit.rag.opening import index_folder

    opened = Index(index_folder(folder))
    if check:
        opened.require_sound()
    if document is not None:
        text = opened.text(document, version)
        if as_json:
            print_json(
                {"document": document, "version": opened.version if version is None else version, "text": text}
            )
        else:
            typer.echo(text)
        return
    facts: dict[str, Any] = {
        "version": opened.version,
        "passages": opened.passages,
        "checked": check,
        "settings": asdict(opened.settings),
        "documents": opened.documents,
        "versions": [asdict(info) for info in opened.versions()],
    }
    if as_json:
        print_json(facts)
        return
    typer.echo(
        f"{folder}: version {facts['version']}, {len(facts['documents'])} documents, {facts['passages']} passages"
    )
    for info in opened.versions():
        typer.echo(f"  version {info.number}  {info.made}  {info.note}")
    for name in facts["documents"]:
        typer.echo(name)
    if check:
        typer.echo("every byte is as it was written")


def _read(sources: list[Path], *, skip: bool) -> Any:
    from ftkit.rag.corpus import read_documents

    return read_documents(sources, on_fault="skip" if skip else "error")


def _print(opened: Any, change: Any, corpus: Any, *, as_json: bool) -> None:
    skipped = [] if corpus is None else list(corpus.faults)
    if as_json:
        faults = [{"where": fault.where, "what": fault.what, "fix": fault.fix} for fault in skipped]
        documents, passages = len(opened.documents), opened.passages
        left_out = [] if corpus is None else [str(path) for path in corpus.left_out]
        counted = {"documents": documents, "passages": passages, "skipped": faults, "left_out": left_out}
        print_json(asdict(change) | counted)
        return
    for fault in skipped:
        typer.echo(f"skipped: {fault}", err=True)
    counts = {name: len(getattr(change, name)) for name in ("added", "replaced", "removed", "unchanged")}
    done = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing changed"
    typer.echo(
        f"{opened.folder}: version {change.version}: {done}; {len(opened.documents)} documents, "
        f"{opened.passages} passages, {change.embedded} embedded"
    )
