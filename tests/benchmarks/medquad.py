"""MedQuAD as a retrieval workload: a corpus of answers, and questions whose answer is the first sentence of one.

    python -m tests.benchmarks.medquad ../shared/data/medquad -o medquad

MedQuAD (Ben Abacha and Demner-Fushman 2019) holds questions about diseases with long answers from NINDS and CDC. Each
answer becomes a document. A question is taken if the first sentence of its answer has 4 to 25 words and stands first
in no other answer; questions about research are left out, whose answers are the same few sentences. They are split by
disease into training and test questions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TEST_SHARE = 0.3


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
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


if __name__ == "__main__":
    main()
