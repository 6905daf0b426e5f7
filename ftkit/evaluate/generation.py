"""Greedy answers."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from ftkit.data.render import render_chat
from ftkit.data.sample import Turn

PROMPT_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One generated answer.

    Attributes:
        text: Without special tokens.
        tokens: Generated, the stop token included.
        finish_reason: ``stop`` where the model ended its turn, ``length`` where it was cut off.
        wall_s: Of the batch that it was generated in.
        nats: Negative log-likelihood of its tokens; None where the model does not say.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]
    wall_s: float
    nats: float | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """What commands print of it."""
        return {key: value for key, value in asdict(self).items() if key != "nats"}


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerBase, *, in_front: Sequence[int] = ()) -> list[int]:
    """One user turn as token ids: through the chat template, or as plain text where there is none.

    Args:
        prompt: What the user says.
        tokenizer: With the template.
        in_front: What stands before plain text (see `ftkit.models.tokenizer.text_prefix`); templates write it
            themselves.
    """
    if tokenizer.chat_template is not None:
        text = render_chat(tokenizer, (Turn(role="user", content=prompt),), ask=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*in_front, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
    pads_prompts: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Answer prompts greedily, in batches of similar length, padded on the left.

    Args:
        model: A causal language model; it is evaluated without dropout and given back in its mode.
        prompts: Token ids, none empty.
        tokenizer: To turn ids into text.
        stop_token_ids: Any of these ends an answer.
        max_new_tokens: Longest answer.
        pads_prompts: Whether prompts of unequal length may share a batch (see `ftkit.methods.Method`).
        progress: Called with prompts done and prompts in all.

    Returns:
        Answers in the order of the prompts.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    config = greedy_config(stop_token_ids, max_new_tokens)
    answers: dict[int, Answer] = {}
    try:
        for group in _by_length(prompts, pads_prompts=pads_prompts):
            started = time.perf_counter()
            ids, mask = pad_left([prompts[index] for index in group], stop_token_ids[0])
            steps = _Likelihoods()
            with without_own_settings(model):
                output = model.generate(
                    input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=copy.deepcopy(config),
                    logits_processor=LogitsProcessorList([steps]),
                )  # fmt: skip
            wall_s = time.perf_counter() - started
            for index, row, nats in zip(group, output[:, ids.shape[1] :].tolist(), steps.nats(group), strict=True):
                answer = answer_of(row, tokenizer, stop_token_ids, wall_s)
                answers[index] = answer if nats is None else replace(answer, nats=sum(nats[: answer.tokens]))
            if progress is not None:
                progress(len(answers), len(prompts))
    finally:
        model.train(was_training)
    return [answers[index] for index in range(len(prompts))]


class _Likelihoods(LogitsProcessor):
    """Keeps how unlikely each token is that greedy search takes, and changes nothing; it costs no pass of its own."""

    def __init__(self) -> None:
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        wide = scores.float()
        self._steps.append(wide.logsumexp(dim=-1) - wide.amax(dim=-1))
        return scores

    def nats(self, rows: Sequence[int]) -> Sequence[list[float] | None]:
        """Of each row, a number a token."""
        return torch.stack(self._steps, dim=1).tolist() if self._steps else [None] * len(rows)


@contextlib.contextmanager
def without_own_settings(model: Any) -> Iterator[None]:
    """A block in which the checkpoint's generation_config is empty.

    transformers fills every setting that is None in the config it is given from the checkpoint's own, and None is how
    a config says that there is no n-gram ban, no least length, no forbidden token.
    """
    inner = model
    while hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = own


def greedy_config(stop_token_ids: Sequence[int], max_new_tokens: int) -> GenerationConfig:
    """Greedy search and nothing else: a checkpoint's own generation_config may ask for sampling or penalties."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_token_ids),
        pad_token_id=stop_token_ids[0],
        use_cache=True,
        repetition_penalty=1.0,
    )


def stop_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end an answer, as a server reads them: from the generation config, else the tokenizer's eos."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if configured is None:
        configured = tokenizer.eos_token_id
    if configured is None:
        return [0]
    return list(configured) if isinstance(configured, (list, tuple)) else [int(configured)]


def _by_length(prompts: Sequence[Sequence[int]], *, pads_prompts: bool) -> list[list[int]]:
    groups: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        length = len(prompts[index])
        fits = groups and (len(groups[-1]) + 1) * length <= PROMPT_TOKENS_PER_BATCH
        if fits and (pads_prompts or len(prompts[groups[-1][0]]) == length):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as a rectangle that ends with each one's last token, and its attention mask."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def answer_of(
    row: list[int], tokenizer: PreTrainedTokenizerBase, stop_token_ids: Sequence[int], wall_s: float
) -> Answer:
    """What was generated, as text, up to the first token that ends an answer."""
    stop = next((index for index, token in enumerate(row) if token in stop_token_ids), None)
    kept = row if stop is None else row[:stop]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(
        text=str(text).strip(),
        tokens=len(kept) + (stop is not None),
        finish_reason="length" if stop is None else "stop",
        wall_s=wall_s,
    )
