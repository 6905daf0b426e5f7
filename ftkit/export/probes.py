"""What the live models answer to a few texts: the measure that every export is held to.

The figures travel inside the export (``verification/``, which no engine looks into), so that it can be checked on any
machine at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ftkit.data.chat import RenderFault
from ftkit.data.example import TokenizedExample
from ftkit.data.render import render_chat
from ftkit.data.sample import Turn
from ftkit.evaluate.generation import greedy_config, without_own_settings
from ftkit.files import PARTIAL_PREFIX, write_text

MAX_TEXTS = 8
MAX_TOKENS = 256
GREEDY_PROMPTS = 3
GREEDY_TOKENS = 24
# Full logits of the trained model and of the base, at as many positions as fit; the others keep their top token.
FULL_LOGITS_BYTES = 8 << 20
CONVERSATIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "Hello!\n\n 12 éß漢字 🙂"),),
    (("user", "One"), ("assistant", "Two"), ("user", "Three")),
    (("system", "Be brief."), ("user", "Why?")),
)
TEXTS = ("Hello world", "  two  spaces\n\n\tand a tab", "3.14 = π, naïve 漢字 🙂", "<|im_end|></s><eos>")


@dataclass
class Probes:
    """Token sequences, and what each model makes of them.

    Attributes:
        ids: Token ids of each text.
        positions: For each text, the positions whose full logits are kept.
        base: For each text the untouched base's logits there, (positions, vocabulary), float32.
        trained: The same of the trained model.
        top: For each text the trained model's most likely next token at every position.
        prompts: Token ids that greedy answers begin from.
        greedy: The trained model's greedy continuation of each prompt.
        margins: For each of these tokens, by how much its logit led.
    """

    ids: list[list[int]]
    positions: list[list[int]]
    prompts: list[list[int]]
    base: list[Tensor] = field(default_factory=list)
    trained: list[Tensor] = field(default_factory=list)
    top: list[Tensor] = field(default_factory=list)
    greedy: list[list[int]] = field(default_factory=list)
    margins: list[list[float]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write everything as safetensors and JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for name, series in (("base", self.base), ("trained", self.trained), ("top", self.top)):
            tensors |= {f"{name}.{index}": value.contiguous() for index, value in enumerate(series)}
        # Written anew when the trained model is measured, over what a resume would read.
        partial = folder / f"{PARTIAL_PREFIX}logits"
        save_file(tensors, partial)
        partial.replace(folder / "logits.safetensors")
        plain = {key: getattr(self, key) for key in ("ids", "positions", "prompts", "greedy", "margins")}
        write_text(folder / "probes.json", json.dumps(plain))

    @classmethod
    def load(cls, folder: Path) -> Probes:
        """Read what `save` wrote."""
        plain = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "logits.safetensors")

        def series(name: str) -> list[Tensor]:
            count = sum(key.startswith(f"{name}.") for key in tensors)
            return [tensors[f"{name}.{index}"] for index in range(count)]

        return cls(**plain, base=series("base"), trained=series("trained"), top=series("top"))


def choose_probes(examples: Sequence[TokenizedExample], vocabulary: int) -> Probes:
    """Pick texts and positions.

    Args:
        examples: Of the validation rows where there are any, else of the training rows.
        vocabulary: Size of the model's logits, which decides how many positions can be kept whole.
    """
    chosen = list(examples[:MAX_TEXTS])
    ids = [example.input_ids[:MAX_TOKENS] for example in chosen]
    per_text = max(1, FULL_LOGITS_BYTES // (2 * 4 * vocabulary) // len(ids))
    positions = []
    for example, tokens in zip(chosen, ids, strict=True):
        # Where the answer begins, and evenly from there on: what training changed most.
        start = max(0, min(example.answer_start, len(tokens) - 1) - 1)
        step = max(1, (len(tokens) - start) // per_text)
        positions.append(list(range(start, len(tokens), step))[:per_text])
    prompts = [example.input_ids[: max(1, example.answer_start)][-MAX_TOKENS:] for example in chosen[:GREEDY_PROMPTS]]
    return Probes(ids=ids, positions=positions, prompts=prompts)


def measure_base(probes: Probes, model: nn.Module) -> None:
    """Keep the untouched base's logits; call it before the method is attached."""
    probes.base, _ = _logits(probes, model)


def measure_trained(probes: Probes, model: Any) -> None:
    """Keep the trained model's logits, top tokens and greedy answers."""
    probes.trained, probes.top = _logits(probes, model)
    probes.greedy, probes.margins = [], []
    device = next(model.parameters()).device
    for prompt in probes.prompts:
        with torch.no_grad():
            ids = torch.tensor([prompt], device=device)
            # No token stops it: where an answer ends is told by the token itself, and the rest is compared too.
            config = greedy_config([0], GREEDY_TOKENS)
            config.eos_token_id = None
            config.return_dict_in_generate = config.output_logits = True
            with without_own_settings(model):
                output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        best = [step[0].float().topk(2).values for step in output.logits]
        probes.greedy.append(output.sequences[0, len(prompt) :].tolist())
        probes.margins.append([float(first - second) for first, second in best])


@torch.no_grad()
def _logits(probes: Probes, model: Any) -> tuple[list[Tensor], list[Tensor]]:
    device = next(model.parameters()).device
    model.eval()
    kept, top = [], []
    for ids, positions in zip(probes.ids, probes.positions, strict=True):
        # From the end: a soft prompt puts logits of its own in front.
        output = model(input_ids=torch.tensor([ids], device=device), use_cache=False)
        logits = output.logits[0, -len(ids) :].float().cpu()
        kept.append(logits[positions].clone())
        top.append(logits.argmax(dim=-1).int())
    return kept, top


def text_fixtures(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Fixed texts and conversations with the ids that this tokenizer and template give them."""
    chats = []
    for conversation in CONVERSATIONS:
        turns = tuple(Turn(role=role, content=content) for role, content in conversation)
        try:
            rendered = None if tokenizer.chat_template is None else render_chat(tokenizer, turns, ask=True)
        except RenderFault:
            rendered = None  # a template may refuse a system turn; the others still tell templates apart
        chats.append({"messages": [{"role": turn.role, "content": turn.content} for turn in turns], "text": rendered})
    texts = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    return {"chats": chats, "texts": texts}
