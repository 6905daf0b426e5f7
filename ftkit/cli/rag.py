"""``ftkit rag``: documents in an index, and questions answered from them."""

from __future__ import annotations

from typing import Any

import typer

from ftkit.cli import rag_ask, rag_eval, rag_index, rag_questions, rag_train, rag_world

app = typer.Typer(
    name="rag",
    help="Answer from documents: build an index, ask it, keep it up to date.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

VERBS: dict[str, Any] = {
    "index": rag_index.index,
    "add": rag_index.add,
    "remove": rag_index.remove,
    "rollback": rag_index.rollback,
    "show": rag_index.show,
    "questions": rag_questions.questions,
    "train": rag_train.train,
    "search": rag_ask.search,
    "ask": rag_ask.ask,
    "eval": rag_eval.evaluate,
    "world": rag_world.world,
}
for _name, _command in VERBS.items():
    app.command(_name)(_command)
