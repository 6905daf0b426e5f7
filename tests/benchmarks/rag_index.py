"""How an index grows: build time, disk, memory, and what a search costs, from a thousand to a million passages.

    python -m tests.benchmarks.rag_index --sizes 1000 10000 100000 1000000

Text and vectors are synthetic: words by Zipf's law, 80 to a passage; vectors in clusters, as those of related texts
are. Searches go through `Index` itself: exact vectors, words, and both fused. Recall is of the exact search against a
plain product of all vectors in float64.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

from ftkit.rag.document import Document
from ftkit.rag.index import Index, create_index
from ftkit.rag.settings import IndexSettings

WIDTH, WORDS, VOCABULARY, CLUSTERS, QUERIES = 384, 80, 60_000, 2_000, 40


class SyntheticEncoder:
    """Vectors by the text's own digest: the same for the same text, near to others of its cluster."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.centres = draw.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)

    def count(self, text: str, role: str = "document") -> int:
        return len(text) // 6

    def vectors(self, texts: Sequence[str], role: str = "document", **_: Any) -> Any:
        seeds = [hash_of(text) for text in texts]
        noise = np.stack([np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]).astype(np.float32)
        found = self.centres[[seed % CLUSTERS for seed in seeds]] + noise
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:16].ljust(16, b"\0"), "big") % (2**61 - 1)


def documents(start: int, count: int) -> list[Document]:
    draw = random.Random(start)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
    words = [f"w{rank}" for rank in range(VOCABULARY)]
    return [
        Document(
            id=f"d{start + at}", text=f"{start + at} " + " ".join(draw.choices(words, cum_weights=weights, k=WORDS))
        )
        for at in range(count)
    ]


def timed(searches: Sequence[Callable[[], Any]]) -> tuple[float, float]:
    """Median and 95th percentile, milliseconds."""
    seconds = []
    for search in searches:
        started = time.perf_counter()
        search()
        seconds.append(1000 * (time.perf_counter() - started))
    return statistics.median(seconds), sorted(seconds)[int(0.95 * len(seconds))]


def questions() -> list[str]:
    """Five words each that a question would have: none of the two hundred commonest, but one."""
    draw = random.Random(1)
    weights = [1 / rank for rank in range(201, 20_001)]
    rare = [f"w{rank}" for rank in range(200, 20_000)]
    return [" ".join(["w3", *draw.choices(rare, weights, k=5)]) for _ in range(QUERIES)]


def recall(index: Index, queries: Any, sha256: str) -> float:
    """Of the ten best by a plain product, the share that the index finds."""
    version, ids, rows = index._passages()
    matrix = index._vectors.rows(int(rows.max()) + 1)
    shares = []
    for query in queries:
        plain = np.concatenate([part.astype(np.float64) @ query for part in np.array_split(matrix, 64)])[rows]
        best = set(ids[np.argsort(-plain)[:10]].tolist())
        found = {hit.passage.id for hit in index.dense(query[None], 10, encoder_sha256=sha256)[0]}
        shares.append(len(best & found) / 10)
    del version
    return sum(shares) / len(shares)


def measure(index: Index, pair: Any) -> dict[str, float]:
    asked = questions()
    queries = pair.query.vectors([f"q{number} {text}" for number, text in enumerate(asked)], "query")
    index.dense(queries[:1], 10, encoder_sha256="synthetic")  # reads the file once
    facts: dict[str, float] = {}
    plans: dict[str, list[Callable[[], Any]]] = {
        "vectors": [
            lambda query=query: index.dense(query[None], 10, encoder_sha256="synthetic") for query in queries
        ],
        "words": [lambda text=text: index.lexical(text, 10) for text in asked],
        "both": [lambda text=text: index.search(text, pair, count=10) for text in asked],
    }
    for name, searches in plans.items():
        facts[f"{name} p50 ms"], facts[f"{name} p95 ms"] = timed(searches)
    facts["recall@10"] = recall(index, queries[:5], "synthetic")
    return facts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--folder", type=Path, default=None)
    given = options.parse_args()
    encoder = SyntheticEncoder()
    pair: Any = SimpleNamespace(query=encoder, document=encoder, sha256="synthetic", width=WIDTH)
    settings = IndexSettings(encoder="synthetic", encoder_sha256="synthetic", width=WIDTH)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder, done = Path(scratch) / "index", 0
        with create_index(folder, settings) as index:
            for size in sorted(given.sizes):
                started = time.perf_counter()
                while done < size:
                    count = min(50_000, size - done)
                    index.add(documents(done, count), pair)
                    done += count
                built = time.perf_counter() - started
                one = time.perf_counter()
                index.add(documents(10**9, 1), pair)
                edit = time.perf_counter() - one
                index.remove([f"d{10**9}"])
                disk = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
                memory = psutil.Process().memory_info()
                facts = measure(index, pair)
                print(
                    f"{size} passages: built so far in {built:.1f} s more, one edit {1000 * edit:.0f} ms, "
                    f"{disk:.0f} MiB on disk, {memory.rss / 2**20:.0f} MiB resident; "
                    + ", ".join(f"{name} {value:.3g}" for name, value in facts.items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
