"""What the server of `tests.faults.line` does once before it forks: imports, and what libraries do only once.

It starts no thread, and no backward pass: torch refuses one in a fork of a process that has done one.
"""

import gc
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tempfile
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

import ftkit.api
import ftkit.cli.app
import ftkit.cli.samples
import ftkit.pipeline.summary  # noqa: F401
from tests.tiny import tiny_model_folder

assert Trainer is not None, "transformers resolves its names on first use"


def _warm_up() -> None:
    """PEFT and transformers look through all their classes, and import some, when a model is first made."""
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = tiny_model_folder(Path(name) / "model", num_hidden_layers=1)
        AutoTokenizer.from_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(folder)
        model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        model.generate(input_ids=torch.tensor([[5, 6]]), max_new_tokens=2, do_sample=False)


torch.set_num_threads(1)
_warm_up()
gc.collect()
gc.freeze()  # what is here now is shared with the forks, and no collection need look at it
