"""Peak memory of merging an adapter into its base: streamed, and with PEFT's merge_and_unload.

    python -m tests.benchmarks.merge_memory FOLDER --layers 20

Makes a random Llama (bfloat16, files of at most 1 GB) and a random LoRA adapter of rank 16 on all its linear layers
in FOLDER, merges them in either way in a process of its own, and compares what came out.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ftkit.export.targets import merged
from ftkit.methods.layerwise import LayerwiseMerge
from ftkit.models.shards import Checkpoint, Shards

WIDTH, INNER, VOCABULARY = 2048, 5632, 32_000


def make(folder: Path, layers: int) -> None:
    """The base and the adapter, written without either in memory."""
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=layers, num_attention_heads=16,
        vocab_size=VOCABULARY, tie_word_embeddings=False,
    )  # fmt: skip
    base, adapter = folder / "base", folder / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    with torch.device("meta"):
        skeleton = LlamaForCausalLM(config)
        shapes = [(name, tuple(value.shape)) for name, value in skeleton.named_parameters()]
        wrapped = get_peft_model(skeleton, LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"))
    torch.manual_seed(0)
    plan = Shards.of(shapes, "bfloat16", at_most=10**9)
    plan.write(base, ((name, 0.02 * torch.randn(shape)) for name, shape in shapes))
    merged.save_config(skeleton, "bfloat16", base)
    weights = {name: 0.02 * torch.randn(value.shape) for name, value in get_peft_model_state_dict(wrapped).items()}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    wrapped.peft_config["default"].save_pretrained(adapter)
    print(f"{sum(path.stat().st_size for path in base.iterdir()) / 1e9:.2f} GB in {len(plan.files)} files")


def streamed(folder: Path, out: Path) -> None:
    """As an export does it."""
    skeleton = merged._skeleton(folder / "base", {})
    shapes = merged._shapes(skeleton)
    merger = LayerwiseMerge(skeleton, folder / "adapter")
    merged.stream(Checkpoint(folder / "base"), merger, shapes, "bfloat16", out, rows={}, added={})
    merged.save_config(skeleton, "bfloat16", out)


def in_memory(folder: Path, out: Path) -> None:
    """As PEFT's documentation shows it."""
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16, local_files_only=True)
    model = PeftModel.from_pretrained(base, folder / "adapter", local_files_only=True)
    model.merge_and_unload().save_pretrained(out)


ARMS = {"streamed": streamed, "merge_and_unload": in_memory}


def compare(folder: Path) -> float:
    """The largest difference between two weights that the arms wrote."""
    ours, theirs = (Checkpoint(folder / arm) for arm in ARMS)
    assert ours.shapes.keys() == theirs.shapes.keys()
    return max(float((ours.read(name).float() - theirs.read(name).float()).abs().max()) for name in ours.shapes)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        out = options.folder / options.arm
        out.mkdir()
        libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        ARMS[options.arm](options.folder, out)
        seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "peak_gib": peak / 2**20, "libraries_gib": libraries / 2**20}))
        return
    make(options.folder, options.layers)
    for arm in ARMS:
        command = [sys.executable, "-m", "tests.benchmarks.merge_memory", str(options.folder), "--arm", arm]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{arm}: peak {found['peak_gib']:.2f} GiB, of which {found['libraries_gib']:.2f} are the libraries; "
              f"{found['seconds']:.0f} s")  # fmt: skip
    print(f"largest difference of two weights: {compare(options.folder):.2g}")
    for arm in ARMS:
        shutil.rmtree(options.folder / arm)


if __name__ == "__main__":
    main()
