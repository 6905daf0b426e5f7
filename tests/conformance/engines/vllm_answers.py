"""python vllm_answers.py JOB: what vLLM makes of an export, and how its own template and tokenizer cut a chat."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main(path: Path) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    job = json.loads(path.read_text(encoding="utf-8"))
    options, request = {}, None
    if job["base"] is not None:
        options = {"enable_lora": True, "max_lora_rank": job["rank"], "tokenizer": job["folder"]}
        request = LoRARequest("tuned", 1, job["folder"])
    engine = LLM(
        model=job["base"] or job["folder"], dtype="float32", enforce_eager=True, max_model_len=512, **options
    )
    settings = SamplingParams(temperature=0, max_tokens=job["tokens"], ignore_eos=True, logprobs=0)
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    found = []
    for answer in engine.generate(prompts, settings, lora_request=request):
        said = answer.outputs[0]
        ids = list(said.token_ids)
        found.append(
            {"ids": ids, "logprobs": [at[token].logprob for at, token in zip(said.logprobs, ids, strict=True)]}
        )
    template = Path(job["folder"], "chat_template.jinja").read_text(encoding="utf-8")
    chat = engine.chat(
        [{"role": "user", "content": job["chat"]}],
        SamplingParams(temperature=0, max_tokens=1),
        chat_template=template,
    )
    found.append({"chat": list(chat[0].prompt_token_ids)})
    Path(job["out"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
