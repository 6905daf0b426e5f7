"""python plain_transformers.py JOB: what transformers, and PEFT for an adapter, make of an export; without ftkit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig


def load(job: dict) -> torch.nn.Module:
    """The export as its card says."""
    if job["base"] is None:
        return AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32)
    from peft import PeftModel

    values = job["quantization"]
    quantization = None if values is None else BitsAndBytesConfig(**values)
    base = AutoModelForCausalLM.from_pretrained(
        job["base"], dtype=torch.float32, **({} if quantization is None else {"quantization_config": quantization})
    )
    return PeftModel.from_pretrained(base, job["folder"])


@torch.no_grad()
def main(path: Path) -> None:
    job = json.loads(path.read_text(encoding="utf-8"))
    model = load(job).eval()
    model.generation_config.eos_token_id = None  # what a config of ours leaves open is filled in from there
    found = []
    for prompt in job["prompts"]:
        row = torch.tensor([prompt])
        config = GenerationConfig(max_new_tokens=job["tokens"], do_sample=False, eos_token_id=None, pad_token_id=0)
        ids = model.generate(input_ids=row, attention_mask=torch.ones_like(row), generation_config=config)
        said = ids[0, len(prompt) :]
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(said) - 1 : -1].float()
        chosen = logits.log_softmax(-1).gather(1, said[:, None])[:, 0]
        found.append({"ids": said.tolist(), "logprobs": chosen.tolist()})
    Path(job["out"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
