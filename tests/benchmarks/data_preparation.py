"""Rows per second from JSONL to token ids and loss masks, against TRL's own preparation.

    python -m tests.benchmarks.corpus conversations.jsonl
    python -m tests.benchmarks.data_preparation conversations.jsonl --trl-python TRL_VENV/bin/python

All get the same file, the same tokenizer and two processes; ftkit and TRL a ChatML template with generation marks,
which TRL needs for its assistant_only_loss, LLaMA-Factory its own ChatML, which trains on the line break after an
answer too. Near-duplicates are not searched. The arms run in turn, each in a process of its own, and what they give
is compared: the same token ids, and of TRL the same supervised tokens, for every row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
digest, ids = hashlib.sha256(), hashlib.sha256()
for example in data.train:
    counted = [int(label != -100) for label in example.labels]
    digest.update(json.dumps([example.input_ids, counted]).encode())
    ids.update(json.dumps(example.input_ids).encode())
print(json.dumps({"seconds": seconds[0], "cached_s": seconds[1], "rows": len(data.train),
                  "tokens": data.report.tokens, "digest": digest.hexdigest(), "ids": ids.hexdigest()}))
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


LLAMA_FACTORY = """
import hashlib, json, sys, tempfile, time
from pathlib import Path
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
file, model, template, processes = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": str(Path(file).resolve()), "formatting": "sharegpt", "columns": {"messages": "messages"},
             "tags": tags}
    (Path(folder) / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    arguments = {"model_name_or_path": model, "stage": "sft", "do_train": True, "finetuning_type": "lora",
                 "dataset": "rows", "dataset_dir": folder, "template": "chatml", "cutoff_len": 1 << 20,
                 "preprocessing_num_workers": int(processes), "output_dir": folder + "/out",
                 "overwrite_cache": True, "report_to": "none", "use_cpu": True}
    model_args, data_args, training_args, _, _ = get_train_args(arguments)
    tokenizer_module = load_tokenizer(model_args)
    found = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
    start = time.perf_counter()
    rows = get_dataset(found, model_args, data_args, training_args, stage="sft", **tokenizer_module)["train_dataset"]
    seconds = time.perf_counter() - start
    digest, tokens = hashlib.sha256(), 0
    for row in rows:
        tokens += len(row["input_ids"])
        digest.update(json.dumps(row["input_ids"]).encode())
print(json.dumps({"seconds": seconds, "rows": len(rows), "tokens": tokens, "ids": digest.hexdigest()}))
"""


def run(python: str, code: str, arguments: list[str], cache: Path) -> dict[str, Any]:
    """One arm in a process of its own."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "FTKIT_TOKEN_CACHE": str(cache)}
    done = subprocess.run([python, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(number: int, ours: dict[str, Any], others: dict[str, dict[str, Any]]) -> None:
    """One line an arm: rows per second, and how many times as fast ours is."""
    millions = ours["tokens"] / 1e6
    rate = ours["rows"] / ours["seconds"]
    print(f"round {number}: ftkit {rate:.0f} rows/s ({ours['rows']} rows, {millions:.2f} M tokens); from the cache "
          f"{ours['cached_s'] / millions:.3f} s per million tokens")  # fmt: skip
    for name, arm in others.items():
        other = arm["rows"] / arm["seconds"]
        same = "the same ids" if arm.get("ids", ours["ids"]) == ours["ids"] else "OTHER ids"
        if "digest" in arm:
            same = "the same ids and masks" if arm["digest"] == ours["digest"] else "OTHER ids or masks"
        print(f"  {name} {other:.0f} rows/s, ratio {rate / other:.2f}; {same}")


def main() -> None:
    """Run the arms in turn and print their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--trl-python", help="The interpreter of an environment with trl.")
    parser.add_argument("--llamafactory-python", help="The interpreter of an environment with llamafactory.")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    from ftkit.models.find import find_base

    arms = {"TRL": (options.trl_python, TRL), "LLaMA-Factory": (options.llamafactory_python, LLAMA_FACTORY)}
    model = str(find_base("smollm2-135m").folder)
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "chatml.jinja"
        template.write_text(TEMPLATE, encoding="utf-8")
        arguments = [options.file, model, str(template), str(PROCESSES)]
        for number in range(1, options.rounds + 1):
            others = {
                name: run(python, code, arguments, Path(folder) / "unused")
                for name, (python, code) in arms.items()
                if python
            }
            report(number, run(sys.executable, OURS, arguments, Path(folder) / f"tokens{number}"), others)


if __name__ == "__main__":
    main()
