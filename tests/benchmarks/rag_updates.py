"""Does the next answer follow an edit, with a real encoder and a real reader?

    python -m tests.benchmarks.rag_updates --edits 50

A closed world is indexed; its documents are changed, added and removed one by one, and after each edit the questions
that it is about are asked. Printed as JSON: how many answers are the new one, the old one or something else, by kind
of edit; the answers before any edit, as the share that is right bounds what can follow; untouched questions that
turned wrong; and, after a rollback, how many answers equal the former ones exactly.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ftkit.notices import show_notices
from ftkit.rag.opening import open_or_create, open_system
from ftkit.rag.updates import draw_edits, measure_updates, world_documents
from ftkit.rag.world import closed_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--asked", type=int, default=2, help="questions after each edit")
    parser.add_argument("--untouched", type=int, default=50, help="questions that no edit is about")
    parser.add_argument("--generator", help="a run, an export or a model; the small known one unless named")
    parser.add_argument("--passages", type=int, help="given to the generator")
    parser.add_argument("--passage-tokens", type=int, help="longest passage")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    options = parser.parse_args()
    show_notices()

    world = closed_world(subjects=options.subjects, paraphrases=1, two_hop=0.0)
    edits = draw_edits(world, options.edits)
    with tempfile.TemporaryDirectory() as folder:
        index, encoders = open_or_create(
            Path(folder) / "index", generator=options.generator, passage_tokens=options.passage_tokens
        )
        index.add(world_documents(world), encoders)
        index.close()
        system = open_system(Path(folder) / "index", max_new_tokens=options.max_new_tokens, passages=options.passages)
        # The threshold of an index is for its readers; here every answer counts.
        system = replace(system, threshold=None)
        started = time.perf_counter()
        found = measure_updates(system, world, edits, asked=options.asked, untouched=options.untouched)
        wall_s = time.perf_counter() - started
    print(
        json.dumps(
            {
                "edits": len(edits),
                "questions": len(found.steps),
                "answers": found.counts(),
                "by_kind": {kind: found.counts(kind) for kind in ("change", "addition", "removal")},
                "right_before": found.right_before / max(1, found.asked_again),
                "untouched": found.untouched,
                "harmed": len(found.harmed),
                "asked_again": found.asked_again,
                "restored": found.restored,
                "wall_s": wall_s,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
