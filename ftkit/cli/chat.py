"""``ftkit chat``: talk with a run, an export or a model."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from ftkit.cli.output import Json, Quiet, print_json

HINT = "/reset forgets, /exit or Ctrl-D leaves, Ctrl-C stops an answer"


def chat(
    target: Annotated[str, typer.Argument(help="A run, an export, or a model.")],
    system: Annotated[str | None, typer.Option("--system", help="Said before the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 for greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=1e-6, max=1, help="Draw from the likeliest tokens only.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of the draw.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Talk, turn by turn, through the target's own chat template; greedy unless told. /reset forgets, /exit leaves.

    Without a terminal it answers each line that it reads. With --json: one document at the end.
    """
    from ftkit.evaluate.speaking import Speech
    from ftkit.notices import log, show_notices
    from ftkit.pipeline.talking import Conversation, talk
    from ftkit.pipeline.target import open_target

    show_notices(quiet=quiet)
    speech = Speech(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    conversation = Conversation(target=open_target(target), speech=speech, system=system)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        log.info(HINT)
    talk(
        conversation,
        _typed() if at_terminal else sys.stdin,
        _keep_quiet if as_json else _write,
        complain=log.warning if at_terminal else None,
    )
    if as_json:
        print_json(conversation.to_dict())


def _typed() -> Iterator[str]:
    """Lines of a person, with editing where Python has it; ends with Ctrl-D."""
    if importlib.util.find_spec("readline") is not None:
        import readline  # noqa: F401 - input() edits lines once this is loaded
    while True:
        try:
            yield input("> ")
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            sys.stderr.write(f"\n{HINT}\n")


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _keep_quiet(piece: str) -> None:
    del piece
