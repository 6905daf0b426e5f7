"""MedQuAD as a retrieval workload: a corpus of answers, and questions whose answer is the first sentence of one.

    python -m tests.benchmarks.medquad ../shared/data/medquad -o medquad
    python -m tests.benchmarks.medquad ../shared/data/medquad -o medquad-small --few

MedQuAD (Ben Abacha and Demner-Fushman 2019) holds questions about diseases with long answers from NINDS and CDC. Each
answer becomes a document. A question is taken if the first sentence of its answer has 4 to 25 words and stands first
in no other answer; questions about research are left out, whose answers are the same few sentences. They are split by
disease into training and test questions. With --few there are 48 and 40 of them, the documents that they are about,
and 32 others, so that a small machine can learn the documents by heart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TEST_SHARE = 0.3
FEW_TRAIN, FEW_TEST, FEW_OTHERS, FEW_SEED = 48, 40, 32, 0


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Every answered question: id, disease, kind, question, answer, first sentence."""
    for file in sorted(folder.glob("*_QA/*.xml")):
        disease = file.stem
        for pair in ElementTree.parse(file).getroot().iter("QAPair"):
            asked = pair.find("Question")
            answer = " ".join((pair.findtext("Answer") or "").split())
            if asked is not None and answer and asked.get("qtype") != "research":
                yield {
                    "id": f"{file.parent.name.split('_')[1]}-{asked.get('qid')}",
                    "disease": f"{file.parent.name}/{disease}",
                    "question": " ".join((asked.text or "").split()).replace(" ?", "?"),
                    "answer": answer,
                    "first": re.split(r"(?<=[.!?])\s+(?=[A-Z])", answer)[0],
                }


def is_test(disease: str) -> bool:
    """Whether a disease's questions are tested on."""
    return int.from_bytes(hashlib.sha256(disease.encode()).digest()[:6], "big") / 2**48 < TEST_SHARE


def write_few(folder: Path) -> None:
    """Keep a few questions of the files in a folder, one a document, and a few documents."""
    corpus, train, test = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("corpus", "train", "test")
    )
    draw, named = random.Random(FEW_SEED), set[str]()
    draw.shuffle(test)
    draw.shuffle(train)

    def some(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for row in rows:
            if len(found) < count and row["document"] not in named:
                named.add(row["document"])
                found.append(row)
        return found

    test, train = some(test, FEW_TEST), some(train, FEW_TRAIN)
    others = [row["id"] for row in corpus if f"corpus.jsonl#{row['id']}" not in named]
    draw.shuffle(others)
    named |= {f"corpus.jsonl#{one}" for one in others[:FEW_OTHERS]}
    kept = [row for row in corpus if f"corpus.jsonl#{row['id']}" in named]
    for name, rows in (("corpus", kept), ("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{name}: {len(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--few", action="store_true", help="48 and 40 questions, 120 documents")
    options = parser.parse_args()
    rows = list(rows_of(options.source))
    often = Counter(row["first"] for row in rows)
    options.output.mkdir(parents=True, exist_ok=True)
    texts = "".join(json.dumps({"id": row["id"], "text": row["answer"]}) + "\n" for row in rows)
    (options.output / "corpus.jsonl").write_text(texts)
    taken: set[str] = set()  # the two sources ask some of the same
    for name, wanted in (("train", False), ("test", True)):
        chosen = [
            {"question": row["question"], "answers": [row["first"]], "document": f"corpus.jsonl#{row['id']}"}
            for row in rows
            if often[row["first"]] == 1 and 4 <= len(row["first"].split()) <= 25 and is_test(row["disease"]) == wanted
        ]
        asked = {row["question"]: row for row in chosen if row["question"] not in taken}
        taken |= asked.keys()
        (options.output / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked.values()))
        print(f"{name}: {len(asked)} questions")
    print(f"{len(rows)} documents")
    if options.few:
        write_few(options.output)


if __name__ == "__main__":
    main()
