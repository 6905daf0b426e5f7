"""Run as a process of its own: load what methods saved, and write the logits they give.

    python -m tests.contract.reload FOLDER

FOLDER holds a folder for some of `PAIRS`, named CASE__FAMILY; the answers go into FOLDER/reloaded.safetensors, under
CASE__FAMILY as ftkit loads it and, for adapters of PEFT on a plain base, plain/CASE__FAMILY as PEFT loads it alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from tests.contract.cases import PAIRS, logits_of


def main(folder: Path) -> None:
    logits = {}
    for case, family in PAIRS:
        name, base = f"{case.id}__{family}", folder / "bases" / family
        if not (folder / name).is_dir():
            continue
        logits[name] = logits_of(case.method().load(case.base(base), folder / name))
        if case.is_peft and case.recipe != "qlora":
            plain = AutoModelForCausalLM.from_pretrained(base)
            logits[f"plain/{name}"] = logits_of(PeftModel.from_pretrained(plain, folder / name))
    save_file(logits, folder / "reloaded.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
