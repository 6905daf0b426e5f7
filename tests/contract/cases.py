"""Every method in the settings that matter, on every family of tiny models that it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ftkit.evaluate.loss import summed_loss
from ftkit.methods import Method, method_of
from ftkit.models.load import load_model
from ftkit.models.prompt_tokens import set_prompt_rows
from ftkit.models.vocabulary import extend_vocabulary
from ftkit.recipe import RECIPES, Recipe
from tests.tiny import tiny_tokenizer

CPU = torch.device("cpu")
FAMILIES = ("llama", "qwen2", "mistral", "gemma2", "gpt2")
ROTARY = ("llama", "qwen2", "mistral", "gemma2")
# Ids of three rows, with labels that leave out each row's beginning.
IDS = torch.tensor(
    [[5, 60, 7, 80, 9, 100, 11, 120], [13, 140, 15, 160, 17, 180, 19, 200], [21, 30, 23, 40, 25, 2, 0, 0]]
)
BATCH = {
    "input_ids": IDS,
    "attention_mask": torch.tensor([[1] * 8, [1] * 8, [1] * 6 + [0] * 2]),
    "labels": torch.where(
        torch.tensor([[0] * 3 + [1] * 5, [0] * 4 + [1] * 4, [0, 0, 1, 1, 1, 1, 0, 0]]) > 0, IDS, -100
    ),
}


@dataclass(frozen=True)
class Case:
    """One method with one choice of settings, as a recipe names them.

    Attributes:
        own: What the names of its trained parameters contain, any of these; told apart from how ftkit finds them.
        saved: What the names of its saved tensors contain, any of these.
        tolerance: Between the trained logits and those of what was saved; 0 where the same sums are taken. Not 0
            where saving rewrites the matrices.
    """

    id: str
    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = FAMILIES
    own: tuple[str, ...] = (".lora_A.", ".lora_B.")
    saved: tuple[str, ...] = (".lora_",)
    tolerance: float = 0.0

    def method(self) -> Method:
        """Built the way a run builds it: from the recipe's settings and the tokenizer."""
        method = method_of(self.as_recipe())
        method.bind(tiny_tokenizer())
        return method

    def as_recipe(self) -> Recipe:
        return RECIPES[self.recipe].model_validate(
            {"recipe": self.recipe, "model": "m", "data": "d.jsonl", "method": self.settings}
        )

    @property
    def is_peft(self) -> bool:
        return self.recipe not in ("full", "adapter")

    @property
    def merges(self) -> bool:
        return "merged" in self.as_recipe().method.EXPORT_KINDS

    def base(self, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The base as training holds it."""
        method = self.method()
        quantization = method.quantization(dtype)
        loaded = load_model(folder, dtype=dtype, device=CPU, quantization_config=quantization)
        return method.prepare(loaded)

    def attached(self, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Attached and started, as a run does before its first step."""
        torch.manual_seed(seed)
        method = self.method()
        model = method.attach(self.base(folder, dtype)).train()
        if method.has_own_start:
            texts = IDS[:2].tolist()
            method.start(model, texts, lambda: load_model(folder, dtype=torch.float32, device=CPU))
        return model


THIN = {"rank": 4, "alpha": 8}
SOFT = {"own": ("prompt_encoder.",), "saved": ("prompt_embeddings",)}
NARROW = {"own": (".bottleneck_adapters.",), "saved": ("layers.",)}
SCALED = ("llama", "gpt2", "gemma2")  # the last multiplies its embeddings
TWO, ENDS = ("llama", "gpt2"), ("llama", "qwen2", "gpt2")


def lora(name: str, families: tuple[str, ...] = FAMILIES, recipe: str = "lora", **settings: Any) -> Case:
    return Case(name, recipe, {**THIN, **settings}, families)


def kind(name: str, own: str, families: tuple[str, ...] = FAMILIES, saved: str = "", **settings: Any) -> Case:
    return Case(name, "lora", {"kind": name, **settings}, families, own=(own,), saved=(saved or own,))


CASES = [
    Case("full", "full", own=("",), saved=("",)),
    Case(
        "full-layers.1", "full", {"parameters": ["model.layers.1.*", "model.norm.weight"]}, ROTARY,
        own=(".1.", "model.norm.weight"), saved=("",),
    ),
    Case("full-h.1", "full", {"parameters": ["transformer.h.1.*"]}, ("gpt2",), own=(".1.",), saved=("",)),
    lora("lora"),
    Case(
        "lora-q-down", "lora", {**THIN, "target_modules": ["q_proj", "down_proj"]}, ROTARY,
        own=("q_proj.lora_", "down_proj.lora_"),
    ),
    Case("lora-c_attn", "lora", {**THIN, "target_modules": ["c_attn"]}, ("gpt2",), own=("c_attn.lora_",)),
    lora("qlora-nf4", recipe="qlora", quantization="nf4"),
    lora("qlora-nf4-single", ("llama",), "qlora", quantization="nf4", double_quantization=False),
    lora("qlora-int8", recipe="qlora", quantization="int8"),
    lora("qlora-loftq", TWO, "qlora", init="loftq"),
    # LoRA's options
    lora("lora-rslora", TWO, use_rslora=True),
    lora("lora-gaussian", ("llama",), init="gaussian"),
    lora("lora-eva", TWO, init="eva"),
    replace(lora("lora-pissa", init="pissa"), tolerance=2e-5),
    replace(lora("lora-olora", ROTARY, init="olora"), tolerance=2e-5),
    replace(
        lora(
            "lora-pissa-rslora-patterns", TWO, init="pissa", use_rslora=True,
            rank_pattern={"(q_proj|c_attn)": 2}, alpha_pattern={"(down_proj|c_fc)": 16},
        ),
        tolerance=2e-5,
    ),
    lora("lora-patterns", ("llama",), rank_pattern={"layers.0.mlp.down_proj": 2}, alpha_pattern={"q_proj": 4}),
    replace(lora("lora-dora", use_dora=True), own=(".lora_",)),
    replace(lora("qlora-dora", ("llama",), "qlora", use_dora=True), own=(".lora_",)),
    replace(
        lora("lora-tokens", ENDS, trainable_tokens=['"', "$"]),
        own=(".lora_", "trainable_tokens_delta"), saved=(".lora_", "token_adapter"),
    ),
    replace(
        lora("lora-head", ("qwen2",), modules_to_save=["lm_head"]),
        own=(".lora_", "lm_head.modules_to_save"), saved=(".lora_", "lm_head"),
    ),
    # LoRA's relatives
    replace(kind("adalora", ".lora_", target_rank=2, initial_rank=4), own=(".lora_",), tolerance=2e-5),
    kind("vera", "vera_lambda", saved="vera_", rank=8),
    kind("ia3", "ia3_l"),
    kind("oft", ".oft_R.", ROTARY, saved=".oft_R", block_size=8),
    kind("loha", ".hada_w", ROTARY, rank=4),
    kind("lokr", ".lokr_w", ROTARY, rank=4),
    # Soft prompts
    Case("prefix", "prefix", {"num_virtual_tokens": 4}, **SOFT),
    Case("prefix-random", "prefix", {"num_virtual_tokens": 4, "init": "random"}, TWO, **SOFT),
    Case("prefix-text", "prefix", {"num_virtual_tokens": 4, "init": "text", "init_text": "hello"}, ENDS, **SOFT),
    Case("prefix-projection", "prefix", {"num_virtual_tokens": 4, "prefix_projection": True}, ENDS, **SOFT),
    Case("prompt", "prompt", {"num_virtual_tokens": 4}, **SOFT),
    Case("prompt-text", "prompt", {"num_virtual_tokens": 4, "init": "text", "init_text": "hello"}, SCALED, **SOFT),
    # Bottleneck adapters
    Case("adapter-houlsby", "adapter", {"reduction_factor": 4}, **NARROW),
    Case("adapter-pfeiffer", "adapter", {"reduction_factor": 4, "architecture": "pfeiffer"}, **NARROW),
    Case(
        "adapter-parallel", "adapter", {"reduction_factor": 4, "architecture": "parallel", "scaling": 4.0}, **NARROW
    ),
    Case("adapter-nf4", "adapter", {"reduction_factor": 4, "quantization": "nf4"}, TWO, **NARROW),
    Case("adapter-int8", "adapter", {"reduction_factor": 4, "quantization": "int8"}, ("llama",), **NARROW),
]  # fmt: skip
# On every family, always. Other cases that fit nearly every family are on all of them with -m slow, and else on three
# that differ in what methods touch: Llama, Gemma 2 (norms behind its branches, scaled embeddings) and GPT-2
# (transposed weights, fused projections). Mistral is built as Llama; biases and a head of its own, as Qwen2 has them,
# the main cases meet.
MAIN = ("full", "lora", "qlora-nf4", "prefix", "prompt", "adapter-houlsby")
DIFFERENT = ("llama", "gemma2", "gpt2")
PAIRS = [(case, family) for case in CASES for family in case.families]
MERGING_PAIRS = [(case, family) for case, family in PAIRS if case.merges]


def is_slow(case: Case, family: str) -> bool:
    """Whether a pair is left to ``-m slow``: others show the same."""
    return case.id not in MAIN and len(case.families) >= len(ROTARY) and family not in DIFFERENT


def train_steps(
    model: nn.Module, count: int, learning_rate: float = 1e-2, *, hooks: Any = None, total: int = 10
) -> None:
    """Plain gradient steps on `BATCH`."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    model.train()
    for step in range(1, count + 1):
        optimizer.zero_grad()
        loss = summed_loss(model, BATCH) / 13
        if hooks is not None and (penalty := hooks.penalty(model)) is not None:
            loss = loss + penalty
        loss.backward()
        optimizer.step()
        if hooks is not None:
            hooks.after_update(model, step, total)
    optimizer.zero_grad()


@torch.no_grad()
def logits_of(model: nn.Module, in_front: Sequence[int] = ()) -> torch.Tensor:
    """Logits of the two rows without padding; those that a soft prompt, or tokens, put in front are left out."""
    model.eval()
    ids = torch.cat([torch.tensor([list(in_front)] * 2, dtype=IDS.dtype), IDS[:2]], dim=1)
    return model(input_ids=ids, use_cache=False).logits[:, -IDS.shape[1] :].float().contiguous()


def merged_of(method: Method, model: nn.Module, fresh: Any) -> tuple[Any, list[int]]:
    """The plain model of a trained one, and the tokens that it has in front of every text, as exports make it."""
    merged: Any = method.merge(model, fresh)
    embeddings = method.virtual_embeddings(model)
    if embeddings is None:
        return merged, []
    rows = merged.get_input_embeddings().weight.shape[0]
    ids = list(range(rows, rows + method.virtual_tokens))
    extend_vocabulary(merged, dict.fromkeys(ids, ()))
    set_prompt_rows(merged, ids, embeddings)
    return merged, ids
