# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Runs in a process of its own, with nothing of ftkit: load an artefact as its users will, and report what it does.

    python -P -E verify_process.py JOB.json OUT_FOLDER

JOB names the folder and what is wanted of it: ``probes`` to measure (for an adapter also its base, quantization and,
where PEFT has none, a loader), ``fixtures`` to render and tokenise, ``contract``: a token contract to be rendered at
several moments. ``prefix_ids`` go in front of every probe and every prompt, which are without them; what is reported
begins behind them, and has a logit for each token of the artefact's vocabulary, theirs included.
What comes out is measured here and judged elsewhere. No network: any attempt to connect ends the process.
"""

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from datetime import datetime
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _no_network(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"verification needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig  # noqa: E402
from transformers.utils import chat_template_utils  # noqa: E402


def load(job):
    """The artefact in float32, so that only the rounding of its stored weights shows."""
    options = {"dtype": torch.float32, "local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    if job["kind"] == "merged":
        return AutoModelForCausalLM.from_pretrained(job["folder"], **options).eval()
    if job["kind"] == "nf4":
        model = AutoModelForCausalLM.from_pretrained(job["folder"], device_map={"": "cpu"}, **options)
        return in_float32(model).eval()
    from peft import PeftModel

    if job["quantization"] is not None:
        config = dict(job["quantization"])
        if "bnb_4bit_quant_type" in config:
            config["bnb_4bit_compute_dtype"] = torch.float32
        options |= {"quantization_config": BitsAndBytesConfig(**config), "device_map": {"": "cpu"}}
    base = AutoModelForCausalLM.from_pretrained(job["base_folder"], **options)
    if base.get_input_embeddings().weight.shape[0] < job["rows"]:  # for added tokens, whose rows the adapter brings
        base.resize_token_embeddings(job["rows"], mean_resizing=False)
    in_float32(base)
    if job["loader"] is not None:  # a single file that stands alone, for adapters that PEFT has none of
        return module_at(job["loader"]).load(base, job["folder"]).eval()
    return PeftModel.from_pretrained(base, job["folder"], local_files_only=True).eval()


def in_float32(model):
    """Let bitsandbytes' layers multiply in float32, whatever the artefact says."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # it would compute in bfloat16 whatever is asked for
            module.compute_dtype = torch.float32
    return model


def module_at(path):
    """A Python file as a module."""
    loader = importlib.machinery.SourceFileLoader("adapter_loader", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None, "a loader that is given makes a spec"
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


def measure(model, job):
    """Logits at the probes' positions, top tokens everywhere, greedy continuations."""
    probes, prefix = job["probes"], job["prefix_ids"]
    tensors, greedy = {}, []
    # transformers fills what a greedy config leaves open (stops, n-gram bans) from the artefact's own.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.generation_config = GenerationConfig()
    with torch.no_grad():
        for index, (ids, positions) in enumerate(zip(probes["ids"], probes["positions"], strict=True)):
            # From the end: a soft prompt puts logits of its own in front.
            logits = model(input_ids=torch.tensor([prefix + ids]), use_cache=False).logits[0, -len(ids) :].float()
            tensors[f"logits.{index}"] = logits[positions].clone()
            tensors[f"top.{index}"] = logits.argmax(dim=-1).int()
        for prompt in probes["prompts"]:
            ids = torch.tensor([prefix + prompt])
            config = GenerationConfig(
                do_sample=False, max_new_tokens=job["greedy_tokens"], pad_token_id=0, eos_token_id=None
            )
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
            greedy.append(output[0, ids.shape[1] :].tolist())
    return tensors, greedy


def read_texts(tokenizer, fixtures):
    """What the tokenizer and template on disk make of the fixed texts."""
    chats = []
    for chat in fixtures["chats"]:
        try:
            chats.append(tokenizer.apply_chat_template(chat["messages"], tokenize=False, add_generation_prompt=True))
        except Exception as error:  # noqa: BLE001 - a missing or broken template is a finding, whatever its kind
            chats.append(None if chat["text"] is None else f"{type(error).__name__}: {error}")
    return {"chats": chats, "texts": [tokenizer(entry["text"])["input_ids"] for entry in fixtures["texts"]]}


@contextlib.contextmanager
def clock_at(moment):
    """Let chat templates see a moment as now; they read the clock through this one module."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):  # noqa: ARG003 - as the clock is called; templates never name a zone
            return datetime.fromisoformat(moment)

    real = chat_template_utils.datetime
    chat_template_utils.datetime = Stopped if moment is not None else real
    try:
        yield
    finally:
        chat_template_utils.datetime = real


def answer_contract(tokenizer, questions, clock):
    """Token ids of the token contract's prompts, as a server would send them to the model."""
    conversations = []
    for chat in questions["conversations"]:
        try:
            with clock_at(clock):
                text = tokenizer.apply_chat_template(
                    chat["messages"], tools=chat["tools"], tokenize=False, add_generation_prompt=True
                )
        except Exception as error:  # noqa: BLE001 - a missing or broken template is a finding, whatever its kind
            conversations.append({"refused": str(error) or type(error).__name__})
        else:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            conversations.append({"text": text, "ids": ids})
    return {"conversations": conversations, "texts": [tokenizer(text)["input_ids"] for text in questions["texts"]]}


def main():
    """Read the job, write the findings."""
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], local_files_only=True, trust_remote_code=False)
    found: dict[str, object] = {}
    if job.get("contract") is not None:
        answers = [answer_contract(tokenizer, job["contract"], clock) for clock in job["clocks"]]
        (out / "contract.json").write_text(json.dumps(answers), encoding="utf-8")
    if "fixtures" in job:
        found |= read_texts(tokenizer, job["fixtures"])
        # Of the artefact's own folder: PEFT leaves the base's on the model.
        found["eos_token_id"] = GenerationConfig.from_pretrained(job["folder"], local_files_only=True).eos_token_id
    if "probes" in job:
        tensors, greedy = measure(load(job), job)
        found |= {"greedy": greedy, "greedy_text": [tokenizer.decode(row) for row in greedy]}
        save_file(tensors, out / "logits.safetensors")
    (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
