"""Run as a process of its own: load what the six methods saved of SmolLM2, and write the logits they give.

python -m tests.contract.reload_real BASE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from ftkit.recipe import RECIPES
from tests.contract.cases import Case

CASES = [Case(name, name) for name in RECIPES]
PROMPT = torch.tensor([[1, 4093, 198, 2683, 314, 260, 3155, 47, 2, 198, 1, 520, 9531, 198]])


@torch.no_grad()
def real_logits(model, in_front: Sequence[int] = ()) -> torch.Tensor:
    """Logits of the prompt's own positions behind what stands in front, in eval mode."""
    model.eval()
    ids = torch.cat([torch.tensor([list(in_front)], dtype=PROMPT.dtype), PROMPT], dim=1)
    return model(input_ids=ids, use_cache=False).logits[:, -PROMPT.shape[1] :].float().contiguous()


def main(base: Path, folder: Path) -> None:
    logits = {}
    for case in CASES:
        method = case.method()
        model = method.load(case.base(base), folder / case.recipe)
        with method.float32_arithmetic(model):
            logits[case.recipe] = real_logits(model)
        if case.is_peft and case.recipe != "qlora":
            plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            logits[f"plain/{case.recipe}"] = real_logits(PeftModel.from_pretrained(plain, folder / case.recipe))
    save_file(logits, folder / "reloaded.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
