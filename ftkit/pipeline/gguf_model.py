"""A GGUF file in llama.cpp, in the shape that targets ask models in; tokens go in and out, texts stay ours."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from gguf import GGUFReader
from torch import Tensor, nn
from transformers import GenerationConfig, TemperatureLogitsWarper, TopPLogitsWarper

from ftkit.errors import ModelError, UsageError

# Keys and values are laid out for the whole context at once; what models of 128k tokens allow would fill a machine.
MAX_CONTEXT = 8192


def can_read_gguf() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


class GgufModel(nn.Module):
    """Generates with llama.cpp on the CPU; greedy, or drawn from its logits by torch's generator.

    Args:
        path: The GGUF file, or the first of several.

    Raises:
        ModelError: llama.cpp cannot load it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._llama_cpp: Any = importlib.import_module("llama_cpp")
        threads = len(os.sched_getaffinity(0))
        context = min(_trained_context(path), MAX_CONTEXT)
        self._llama = self._open(path, n_ctx=context, n_threads=threads, n_threads_batch=threads)
        atexit.register(self._llama.close)  # it frees itself by functions that are gone when the interpreter ends
        text_config = SimpleNamespace(max_position_embeddings=context)
        self.config = SimpleNamespace(get_text_config=lambda: text_config)
        self.generation_config = GenerationConfig()
        # Whoever asks a model for its device asks its first parameter.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def _open(self, path: Path, **options: Any) -> Any:
        try:
            return self._llama_cpp.Llama(model_path=str(path), verbose=False, **options)
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{path}: llama.cpp cannot load it: {error}", fix="Export it again.") from None

    def forward(self, **_: Any) -> Any:
        """Losses are not taken here."""
        raise UsageError(
            "losses of a GGUF export are not measured in llama.cpp",
            fix="Run `ftkit eval` on the run or its merged export; `ftkit verify` compares the two.",
        )

    def generate(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        generation_config: GenerationConfig,
        stopping_criteria: Any = (),
        logits_processor: Any = (),  # noqa: ARG002
    ) -> Tensor:
        """As transformers' own: prompts and answers, (batch, tokens), filled up with the pad token on the right.

        No logits are processed: what ftkit has for them keeps likelihoods, and none are taken here.
        """
        assert bool(attention_mask.all()), "prompts of unequal length do not share a batch here"
        rows = [self._row(row[None], generation_config, stopping_criteria) for row in input_ids]
        width = max(map(len, rows))
        pad = generation_config.pad_token_id
        return torch.tensor([row + [pad] * (width - len(row)) for row in rows])

    def _row(self, ids: Tensor, config: GenerationConfig, stopping_criteria: Any) -> list[int]:
        self._llama.reset()
        unread = ids[0].tolist()
        for _ in range(config.max_new_tokens):
            self._llama.eval(unread)
            unread = [self._next(ids, config)]
            ids = torch.cat([ids, torch.tensor([unread])], dim=1)
            heard = [bool(one(ids, None)) for one in stopping_criteria]  # all of them, the stop token too
            if unread[0] in config.eos_token_id or any(heard):
                break
        return [int(token) for token in ids[0]]

    def _next(self, ids: Tensor, config: GenerationConfig) -> int:
        pointer = self._llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        logits = torch.tensor(pointer[: self._llama.n_vocab()])[None]
        if not config.do_sample:
            return int(logits.argmax())
        for warp in (TemperatureLogitsWarper(float(config.temperature)), TopPLogitsWarper(top_p=config.top_p)):
            logits = warp(ids, logits)
        return int(torch.multinomial(logits.softmax(-1), 1))


def _trained_context(path: Path) -> int:
    """Tokens that the model was trained on at once."""
    try:
        fields = GGUFReader(path).fields
    except (ValueError, OSError, IndexError) as error:
        raise ModelError(f"{path}: is no readable GGUF: {error}", fix="Export it again.") from None
    named = fields.get("general.architecture")
    length = None if named is None else fields.get(f"{named.contents()}.context_length")
    return MAX_CONTEXT if length is None else int(length.contents())
