"""How often both documents of a two-hop question are found, with one search and with two.

    python -m tests.benchmarks.two_hops

A closed world is indexed with the known encoder. Printed as JSON for each way of searching: the share of questions
whose documents are all among the first 2, 3, 5 and 10 hits, of questions that need two documents and of those that
need one; beside both forms the plain one of multi-hop retrieval, question and passage as the second query.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from ftkit.notices import show_notices
from ftkit.rag.hops import two_hops
from ftkit.rag.opening import open_or_create
from ftkit.rag.passage import Hit
from ftkit.rag.settings import Mode
from ftkit.rag.updates import world_documents
from ftkit.rag.world import closed_world

DEPTHS = (2, 3, 5, 10)
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=80)
    parser.add_argument("--passage-tokens", type=int, default=48)
    parser.add_argument("--most", type=int, default=150, help="questions of each kind")
    options = parser.parse_args()
    show_notices()
    world = closed_world(subjects=options.subjects)
    asked = [one for one in world.questions if one.answers]
    kinds = {hops: [one for one in asked if one.hops == hops][: options.most] for hops in (1, 2)}
    with tempfile.TemporaryDirectory() as folder:
        index, encoders = open_or_create(Path(folder) / "index", passage_tokens=options.passage_tokens)
        index.add(world_documents(world), encoders)
        found = {}
        for mode in MODES:

            def search(text: str, mode: Mode = mode) -> list[Hit]:
                return index.search(text, encoders, count=20, mode=mode)

            ways: dict[str, Callable[[str], list[Hit]]] = {
                "one search": search,
                "two searches": lambda text, search=search: two_hops(search(text), search, text, 20),  # type: ignore[misc]
                "question and passage": lambda text, search=search: plain(text, search),  # type: ignore[misc]
            }
            for way, look in ways.items():
                found[f"{mode}, {way}"] = {
                    f"{hops} document{'s' if hops > 1 else ''}": shares(questions, look)
                    for hops, questions in kinds.items()
                }
        index.close()
    print(json.dumps({"questions": {hops: len(one) for hops, one in kinds.items()}, "at": DEPTHS, "found": found}))


def plain(text: str, search: Callable[[str], list[Hit]]) -> list[Hit]:
    """The second query of multi-hop dense retrieval."""
    first = search(text)
    second = search(f"{text} {first[0].passage.content}")
    chosen = {hit.passage.id: hit for hit in reversed([first[0], *second, *first[1:]])}
    return list(reversed(chosen.values()))


def shares(questions: list, look: Callable[[str], list[Hit]]) -> list[float]:  # type: ignore[type-arg]
    """Of each depth, the share of questions whose documents are all found."""
    ranked = [[hit.passage.document for hit in look(one.question)] for one in questions]
    return [
        round(sum(set(one.documents) <= set(hits[:depth]) for one, hits in zip(questions, ranked, strict=True))
              / len(questions), 3)
        for depth in DEPTHS
    ]  # fmt: skip


if __name__ == "__main__":
    main()
