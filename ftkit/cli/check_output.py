"""What ``ftkit check`` found of a RAG run or a comparison, for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ftkit.units import format_bytes, format_count

SIDES = {"train": "to train on", "validation": "held back", "test": "to be measured on"}


def print_rag(found: dict[str, Any]) -> None:
    """Of ``recipe: rag``."""
    lines = [*_models(found), *_questions(found)]
    made = found["questions"]["synthetic"]
    if made is not None:
        lines.append(f"          {made['wanted']} are made from the corpus; training needs {made['least']} of them")
    lines.append(_readings(found["readings"]))
    about = "" if found["steps_exact"] else "at most "
    lines.append(f"train     {about}{found['steps']} steps; {found['compute']} on {found['device']}")
    lines += [
        f"          {one['steps']:>5} {one['name']}: {one['questions']} questions" for one in found["stretches"]
    ]
    _print([*lines, *_needs(found["estimate"])], found["warnings"])


def print_compare(found: dict[str, Any]) -> None:
    """Of ``recipe: compare``."""
    lines = [*_models(found), *_questions(found)]
    for number, one in enumerate(found["systems"]):
        learnt = ", ".join([*one["stages"], *one["learns"]])
        trains = f"trains {learnt}, {len(one['seeds'])} seeds" if learnt else "is not trained"
        lines.append(f"{'systems' if not number else '':10}{one['name']}: passages {one['retrieval']}; {trains}")
    for number, one in enumerate(found["tests"]):
        lines.append(f"{'tests' if not number else '':10}{one['a']} against {one['b']}: {one['metric']}")
    if found["estimate"] is not None:
        lines += [_readings(found["readings"]), *_needs(found["estimate"])]
    _print(lines, found["warnings"])


def print_hybrid(found: dict[str, Any]) -> None:
    """Of ``recipe: hybrid``."""
    encoder, memory = found["encoder"], found["memory"]
    lines = [f"kind      {found['kind']}"]
    if encoder is not None:
        lines.append(
            f"encoder   {encoder['name']}  SHA-256 {encoder['sha256'][:16]}…, reads {encoder['max_tokens']} tokens"
        )
    for number, (name, one) in enumerate(found["members"].items()):
        given = f"{one['documents']} documents, {one['retrieval']} search, {one['passages']} passages given"
        what = given if one["passages"] else "asked without passages"
        lines.append(
            f"{'members' if not number else '':10}{name}: {format_count(one['parameters'])} parameters; {what}"
        )
    if memory is not None:
        lines.append(
            f"memory    {memory['entries']} tokens of {memory['texts']} texts and {memory['answers']} answers, about "
            f"{format_bytes(memory['bytes'])}; {memory['dev']} questions are left to choose the weight by"
        )
    lines += _questions(found)
    lines.append(f"{'':10}about {found['questions']['train']['groups']} groups of documents to learn from")
    _print(lines, found["warnings"])


def print_improve(found: dict[str, Any]) -> None:
    """Of ``recipe: improve``."""
    data, gate = found["data"], found["gate"]
    lines = [
        f"model     {found['model']['name']}  SHA-256 {found['model']['sha256'][:16]}…",
        f"current   {found['current']['place']}  {found['current']['digest'][:16]}…",
        f"test      {found['test']['questions']} questions  SHA-256 {found['test']['sha256'][:16]}…",
        f"gate      {gate['metric']} better by more than {gate['margin']:g}, p at most {gate['level']:g}",
        f"log       {data['rows']} answers, {data['torn_lines']} torn lines; {data['kept']} kept",
        *(f"          {count} {reason}" for reason, count in data["dropped"].items()),
    ]
    _print(lines, found["warnings"])


def _models(found: dict[str, Any]) -> list[str]:
    model, encoder, corpus = found["model"], found["encoder"], found["corpus"]
    faults = f", {len(corpus['faults'])} sources left out" if corpus["faults"] else ""
    return [
        f"model     {model['name']}  SHA-256 {model['sha256'][:16]}…",
        f"encoder   {encoder['name']}  SHA-256 {encoder['sha256'][:16]}…, reads {encoder['max_tokens']} tokens",
        f"corpus    {corpus['documents']} documents, {corpus['passages']} passages, {format_count(corpus['tokens'])} "
        f"tokens; longest passage {corpus['longest_passage']}{faults}",
    ]


def _questions(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, words in SIDES.items():
        if name in found["questions"]:
            side = found["questions"][name]
            head = "questions" if not lines else ""
            lines.append(
                f"{head:10}{side['questions']} {words}: {side['answerable']} with an answer, {side['unanswerable']} "
                f"without; {side['naming_documents']} name their documents"
            )
    return lines


def _readings(readings: dict[str, Any]) -> str:
    return f"readings  at most {readings['longest_possible']} tokens; data.max_length allows {readings['max_length']}"


def _needs(needs: dict[str, Any]) -> list[str]:
    return [
        f"memory    about {format_bytes(needs['memory'])} of {format_bytes(needs['available'])} free: weights "
        f"{format_bytes(needs['weights'])}, optimizer and encoders {format_bytes(needs['training'])}, activations "
        f"{format_bytes(needs['activations'])}",
        f"disk      about {format_bytes(needs['disk'])}",
    ]


def _print(lines: list[str], warnings: list[str]) -> None:
    console = Console()
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
