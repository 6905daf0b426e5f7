"""Does what a retriever learnt on one corpus help or harm on another?

    python -m tests.benchmarks.docs_transfer ../shared/data/docs_rag --runs RUN...

The 232 sections of a product's documentation and 50 questions about it, each with the sections that answer it.
Printed as JSON for the known encoder and for the encoders of each RAG run: the share of questions of which a right
section is first, and among the first five, by vectors and by both searches; and how likely chance alone makes the
difference from the known encoder at the first rank.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from ftkit.compare.contrasts import mcnemar
from ftkit.notices import show_notices
from ftkit.rag.building import build_index
from ftkit.rag.corpus import read_documents
from ftkit.rag.encoder import EncoderPair, load_encoder
from ftkit.rag.opening import ENCODER, open_encoders
from ftkit.rag.settings import IndexSettings, Mode

MODES: tuple[Mode, ...] = ("dense", "hybrid")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    show_notices(quiet=True)
    sections = json.loads((options.source / "anthropic_docs.json").read_text(encoding="utf-8"))
    asked = json.loads((options.source / "questions_1-50.json").read_text(encoding="utf-8"))
    encoders = {"untrained": EncoderPair(load_encoder(ENCODER))}
    encoders |= {run.name: open_encoders(run / "index") for run in options.runs}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "docs.jsonl"
        rows = [{"id": one["chunk_link"], "text": one["text"]} for one in sections if one["text"].strip()]
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        documents = read_documents([corpus]).documents
        first: dict[str, dict[Mode, list[bool]]] = {}
        found = {}
        for name, pair in encoders.items():
            settings = IndexSettings(encoder=name, encoder_sha256=pair.sha256, width=pair.width)
            with build_index(Path(folder) / name, documents, pair, settings) as index:
                for mode in MODES:
                    ranks = []
                    for one in asked:
                        right = {f"docs.jsonl#{link}" for link in one["correct_chunks"]}
                        hits = index.search(one["question"], pair, count=20, mode=mode)
                        seen = list(dict.fromkeys(hit.passage.document for hit in hits))
                        ranks.append(next((rank for rank, name_ in enumerate(seen, 1) if name_ in right), 99))
                    first.setdefault(name, {})[mode] = [rank == 1 for rank in ranks]
                    found[f"{name}, {mode}"] = {
                        "first": sum(rank == 1 for rank in ranks) / len(ranks),
                        "among five": sum(rank <= 5 for rank in ranks) / len(ranks),
                        "p against untrained": mcnemar(first[name][mode], first["untrained"][mode]),
                    }
    print(json.dumps({"sections": len(rows), "questions": len(asked), "found": found}, indent=2))


if __name__ == "__main__":
    main()
