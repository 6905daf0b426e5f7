"""Run as a process of its own: load what methods saved, and write the logits they give.

    python -m tests.contract.reload FOLDER

FOLDER holds a folder for each of `PAIRS`, named CASE__FAMILY; the answers go into FOLDER/reloaded.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.contract.cases import PAIRS, logits_of


def main(folder: Path) -> None:
    logits = {}
    for case, family in PAIRS:
        name = f"{case.id}__{family}"
        logits[name] = logits_of(case.method().load(case.base(folder / "bases" / family), folder / name))
    save_file(logits, folder / "reloaded.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
