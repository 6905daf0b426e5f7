"""Time and resident memory of a whole command and the processes that it starts.

python -m tests.benchmarks.memory -- ftkit data big.jsonl stats --quiet
python -m tests.benchmarks.memory --make big.jsonl --from conversations.jsonl --gigabytes 2
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import psutil

EVERY_S = 0.2


def make(target: Path, source: Path, gigabytes: float) -> None:
    """Repeat the rows of a file, each time with another number in its first text, until it is as large as wanted."""
    lines = source.read_text(encoding="utf-8").splitlines()
    written, copy = 0, 0
    with target.open("w", encoding="utf-8") as stream:
        while written < gigabytes * 1e9:
            for line in lines:
                written += stream.write(line.replace('"content": "', f'"content": "{copy} ', 1) + "\n")
            copy += 1
    print(f"{target.stat().st_size / 1e9:.2f} GB, {copy * len(lines):,} rows")


def measure(command: list[str]) -> None:
    """Run a command; print its time and the largest sum of resident memory over its process tree."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tree = psutil.Process(process.pid)
    peak = single = 0
    while process.poll() is None:
        try:
            sizes = [one.memory_info().rss for one in (tree, *tree.children(recursive=True))]
            peak, single = max(peak, sum(sizes)), max(single, *sizes)
        except psutil.Error:  # one of them ended just now
            pass
        time.sleep(EVERY_S)
    wall = time.perf_counter() - start
    total, largest = peak / (1 << 30), single / (1 << 30)
    print(f"exit {process.returncode}, {wall:.0f} s, peak {total:.2f} GiB in all, {largest:.2f} GiB in one process")


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--from", type=Path, dest="source")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.source, options.gigabytes)
    else:
        measure(options.command)


if __name__ == "__main__":
    main()
