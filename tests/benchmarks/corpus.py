"""Conversations for benchmarks out of text that is on every machine: the docstrings of the installed packages.

    python -m tests.benchmarks.corpus FILE --conversations 20000

Each paragraph is used once, so no cache of whole texts helps anybody, and words repeat as they do in real text.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

TURNS = (2, 4, 6)  # of a conversation: one to three questions with their answers
CHARACTERS = {"user": (40, 120), "assistant": (60, 480)}

_MARKUP = re.compile(r"<\S+>")  # some packages document control tokens, which no row may spell


def paragraphs() -> list[str]:
    """Different paragraphs of docstrings, in a fixed order."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        for docstring in _docstrings(path):
            for paragraph in docstring.split("\n\n"):
                if len(paragraph) >= CHARACTERS["user"][0] and not _MARKUP.search(paragraph):
                    found[paragraph.strip()] = None
    return list(found)


def conversations(count: int, seed: int = 0) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Conversations of one to three exchanges; ends early where text runs out."""
    draw = random.Random(seed)
    pool = paragraphs()
    draw.shuffle(pool)
    for _ in range(count):
        messages = []
        for turn in range(draw.choice(TURNS)):
            role = ("user", "assistant")[turn % 2]
            least, most = CHARACTERS[role]
            wanted = draw.randint(least, most)
            text = ""
            while pool and len(text) < wanted:
                text = f"{text}\n\n{pool.pop()}" if text else pool.pop()
            if not pool:
                return
            messages.append({"role": role, "content": text[: most * 2]})
        yield {"messages": messages}


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            yield text


def main() -> None:
    """Write the file and say how much it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--conversations", type=int, default=20_000)
    options = parser.parse_args()
    rows = [json.dumps(row) for row in conversations(options.conversations)]
    options.file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} conversations, {options.file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
