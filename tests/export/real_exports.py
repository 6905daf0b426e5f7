"""SmolLM2-135M tuned for a few steps on the shipped rows, with all that an export records about it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ftkit.export.probes import Probes, measure_base, measure_trained
from ftkit.export.trained import Trained
from ftkit.methods import LoRAMethod
from ftkit.models.find import BaseModel
from ftkit.models.load import load_model
from ftkit.models.tokenizer import load_tokenizer

DATA = Path(__file__).parents[2] / "recipes" / "data"
STEPS, ROWS_A_STEP, LEARNING_RATE = 12, 4, 1e-3


def shop_trained(base: BaseModel, *, steps: int = STEPS) -> Trained:
    """A live model after plain gradient steps of LoRA; its probes are held-back rows."""
    tokenizer = load_tokenizer(base.folder)
    method = LoRAMethod(rank=8, alpha=16)
    method.bind(tokenizer)
    model = load_model(base.folder, dtype=torch.float32, device=torch.device("cpu"))
    probes = _probes(tokenizer)
    measure_base(probes, model)
    torch.manual_seed(0)
    attached = method.attach(model).train()
    optimizer = torch.optim.AdamW([p for p in attached.parameters() if p.requires_grad], lr=LEARNING_RATE)
    rows = [_ids(tokenizer, row) for row in _rows("train", steps * ROWS_A_STEP)]
    for step in range(steps):
        optimizer.zero_grad()
        for ids, start in rows[step * ROWS_A_STEP : (step + 1) * ROWS_A_STEP]:
            labels = torch.tensor([[-100] * start + ids[start:]])
            (attached(input_ids=torch.tensor([ids]), labels=labels).loss / ROWS_A_STEP).backward()
        optimizer.step()
    measure_trained(probes, attached.eval())
    return Trained(
        model=attached, method=method, base=base, tokenizer=tokenizer, added_tokens={},
        stop_token_ids=[tokenizer.eos_token_id], probes=probes, quantization=None,
        origin={"recipe": "lora", "method": {}, "recipe_digest": "r", "data_digest": "d"},
        facts={
            "data": {"trained": len(rows), "supervised_tokens": sum(len(ids) - start for ids, start in rows),
                     "validation": len(probes.ids)},
            "metrics": {}, "losses": {"before": None, "after": None},
        },
    )  # fmt: skip


def _rows(name: str, count: int) -> list[list[dict[str, str]]]:
    lines = (DATA / f"shop_tickets_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines[:count]]


def _ids(tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], int]:
    """Token ids of a conversation, and where its answer begins."""
    question = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole.startswith(question)
    return tokenizer(whole)["input_ids"], len(tokenizer(question)["input_ids"])


def _probes(tokenizer) -> Probes:
    rows = [_ids(tokenizer, row) for row in _rows("heldback", 8)]
    return Probes(
        ids=[ids for ids, _ in rows],
        positions=[list(range(start - 1, len(ids), 3)) for ids, start in rows],
        prompts=[ids[:start] for ids, start in rows[:3]],
    )
