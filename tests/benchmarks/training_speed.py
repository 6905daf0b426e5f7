"""Training speed of ftkit against transformers' Trainer with PEFT, and what each measure of ours brings.

    python -m tests.benchmarks.training_speed --data ROWS.jsonl [--rounds 3] [--steps 8]

Each arm is a process of its own, the arms take turns, and only ratios within a round are compared.
SmolLM2-135M, LoRA rank 16 on all linear layers, 8 rows a step, loss on answers only. The peer has its best
known settings on a CPU: bfloat16 weights, rows grouped by length, 4 rows a forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARMS = ("ftkit", "ftkit, system allocator", "ftkit, full output head", "Trainer + PEFT")
BATCH_SIZE, MICRO = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.data, options.steps)))
        return
    speeds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS:
            command = [sys.executable, "-m", "tests.benchmarks.training_speed", "--data", options.data]
            command += ["--steps", str(options.steps), "--arm", arm]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            speeds[arm].append(found["tokens_per_s"])
            print(f"round {number + 1}  {arm:26} {found['tokens_per_s']:6.0f} tokens/s  {found['rss_gib']:.2f} GiB")
    print("\narm                         median tokens/s   ratio to Trainer + PEFT (median of rounds)")
    for arm in ARMS:
        ratios = [ours / peer for ours, peer in zip(speeds[arm], speeds[ARMS[-1]], strict=True)]
        print(f"{arm:26} {statistics.median(speeds[arm]):10.0f} {statistics.median(ratios):14.2f}")


def run_arm(arm: str, data: str, steps: int) -> dict[str, float]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from ftkit.data.prepare import prepare
    from ftkit.methods import LoRAMethod
    from ftkit.models.find import find_base
    from ftkit.models.load import load_model
    from ftkit.models.tokenizer import load_tokenizer
    from ftkit.recipe import DataSection

    base = find_base("smollm2-135m")
    tokenizer = load_tokenizer(base.folder)
    settings = DataSection.model_validate({"train": data, "validation": None})
    prepared = prepare(settings, tokenizer, bos_wanted=False, template_names=())
    peer = arm == "Trainer + PEFT"
    dtype = torch.bfloat16 if peer else torch.float32
    torch.manual_seed(0)
    model = LoRAMethod().attach(load_model(base.folder, dtype=dtype, device=torch.device("cpu")))
    with tempfile.TemporaryDirectory() as scratch:
        speed = (_peer if peer else _ours)(arm, model, prepared.train, steps, Path(scratch))
    return {"tokens_per_s": speed, "rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def _ours(arm, model, rows, steps, folder):
    import torch

    import ftkit.evaluate.loss
    import ftkit.train.trainer as trainer

    if arm == "ftkit, system allocator":
        trainer.keep_freed_memory = lambda: False
    if arm == "ftkit, full output head":
        ftkit.evaluate.loss.keeps_chosen_logits = lambda model: False
    spec = trainer.FitSpec(
        learning_rate=2e-4, schedule="constant", warmup=0.0, weight_decay=0.0, max_grad_norm=1.0, epochs=100,
        max_steps=steps + 1, batch_size=BATCH_SIZE, micro_batch_size=MICRO, gradient_checkpointing=False,
        compute=torch.bfloat16, seed=0, checkpoint_every=10**6, keep_last=1, validate_every=10**6, log_every=1,
        folder=folder,
    )  # fmt: skip
    trainer.fit(model, rows, [], spec)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = lines[0], lines[-1]  # the first step also pays for warming up
    return (last["tokens"] - first["tokens"]) / (last["wall_s"] - first["wall_s"])


def _peer(arm, model, rows, steps, folder):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from ftkit.data.collate import collate

    counts = {"tokens": 0}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                counts["tokens"], counts["start"] = 0, time.perf_counter()
            counts["end"] = time.perf_counter()

    def counted(examples):
        batch = collate(examples)
        counts["tokens"] += int(batch["attention_mask"].sum())
        return batch

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps + 1, per_device_train_batch_size=MICRO, save_strategy="no",
        gradient_accumulation_steps=BATCH_SIZE // MICRO, learning_rate=2e-4, lr_scheduler_type="constant",
        train_sampling_strategy="group_by_length", report_to="none", disable_tqdm=True, use_cpu=True,
        remove_unused_columns=False, seed=0, bf16=False,
    )  # fmt: skip

    class Rows(list):
        """Group-by-length reads row["input_ids"]."""

    Trainer(
        model=model, args=arguments, data_collator=counted, callbacks=[Clock()],
        train_dataset=Rows(_Row(row) for row in rows),
    ).train()  # fmt: skip
    # The batches of a step are fetched before it ends; those of the first step were forgotten with its time.
    return counts["tokens"] / (counts["end"] - counts["start"])


class _Row:
    """An example that can also be read like a dict."""

    def __init__(self, example):
        self.input_ids, self.labels = example.input_ids, example.labels

    def __getitem__(self, key):
        return getattr(self, key)

    def __iter__(self):
        return iter(("input_ids", "labels"))

    def keys(self):
        return ("input_ids", "labels")


if __name__ == "__main__":
    main()
