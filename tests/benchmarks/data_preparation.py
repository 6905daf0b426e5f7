"""Rows per second from JSONL to token ids and loss masks, against TRL's own preparation.

    python -m tests.benchmarks.corpus conversations.jsonl
    python -m tests.benchmarks.data_preparation conversations.jsonl --trl-python TRL_VENV/bin/python

Both get the same file, the same tokenizer, two processes, and a ChatML template with generation marks, which TRL
needs for its assistant_only_loss; near-duplicates are not searched. The arms run in turn, each in a process of its
own, and what they give is compared: the same token ids and the same supervised tokens for every row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROCESSES = 2

OURS = """
import datetime, hashlib, json, sys, time
from pathlib import Path
from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.models.tokenizer import load_tokenizer
from ftkit.recipe import DataSection
file, model, template, processes = sys.argv[1:]
tokenizer = load_tokenizer(Path(model), template)
section = DataSection(train=file, validation=None, max_length=1 << 20, near_duplicates=False, workers=int(processes))
encoder = encoder_settings(tokenizer, train_on="assistant", allow_control_tokens=False, today=datetime.date.today())
seconds = []
for _ in range(2):  # the second time from the cache
    start = time.perf_counter()
    data = prepare(section, encoder)
    seconds.append(time.perf_counter() - start)
digest = hashlib.sha256()
for example in data.train:
    counted = [int(label != -100) for label in example.labels]
    digest.update(json.dumps([example.input_ids, counted]).encode())
print(json.dumps({"seconds": seconds[0], "cached_s": seconds[1], "rows": len(data.train),
                  "tokens": data.report.tokens, "digest": digest.hexdigest()}))
"""

TRL = """
import hashlib, json, sys, tempfile, time
import datasets
from pathlib import Path
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer
file, model, template, processes = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
tokenizer.chat_template = Path(template).read_text()
tiny = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
                                    num_hidden_layers=1, num_attention_heads=1))
with tempfile.TemporaryDirectory() as folder:
    config = SFTConfig(output_dir=folder, assistant_only_loss=True, dataset_num_proc=int(processes), max_length=None,
                       packing=False, report_to="none", use_cpu=True, bf16=False, eos_token="<|im_end|>")
    start = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=file, split="train", cache_dir=folder)
    trainer = SFTTrainer(model=tiny, args=config, train_dataset=rows, processing_class=tokenizer)
    seconds = time.perf_counter() - start
    digest, tokens = hashlib.sha256(), 0
    for row in trainer.train_dataset:
        tokens += len(row["input_ids"])
        counted = [int(label != -100) for label in row["labels"]]
        digest.update(json.dumps([row["input_ids"], counted]).encode())
print(json.dumps({"seconds": seconds, "rows": len(trainer.train_dataset), "tokens": tokens,
                  "digest": digest.hexdigest()}))
"""


def run(python: str, code: str, arguments: list[str], cache: Path) -> dict[str, object]:
    """One arm in a process of its own."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "FTKIT_TOKEN_CACHE": str(cache)}
    done = subprocess.run([python, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run the arms in turn and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--trl-python", required=True, help="The interpreter of an environment with trl.")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    from ftkit.models.find import find_base

    model = str(find_base("smollm2-135m").folder)
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "chatml.jinja"
        template.write_text(TEMPLATE, encoding="utf-8")
        arguments = [options.file, model, str(template), str(PROCESSES)]
        for number in range(options.rounds):
            theirs = run(options.trl_python, TRL, arguments, Path(folder) / "unused")
            ours = run(sys.executable, OURS, arguments, Path(folder) / f"tokens{number}")
            rate, other = (float(str(arm["rows"])) / float(str(arm["seconds"])) for arm in (ours, theirs))
            millions = float(str(ours["tokens"])) / 1e6
            print(f"round {number + 1}: ftkit {rate:.0f} rows/s, TRL {other:.0f} rows/s, ratio {rate / other:.2f}; "
                  f"{ours['rows']} rows, {millions:.2f} M tokens; from the cache "
                  f"{float(str(ours['cached_s'])) / millions:.3f} s per million tokens")  # fmt: skip
            same = ours["digest"] == theirs["digest"]
            print("  the same ids and masks for every row" if same else "  DIFFERENT ids or masks")


if __name__ == "__main__":
    main()
