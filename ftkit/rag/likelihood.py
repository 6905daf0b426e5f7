"""How likely a generator finds a text as the answer to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ftkit.data.collate import collate
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.evaluate.loss import Loss, mean_loss, row_losses
from ftkit.models.precision import arithmetic
from ftkit.pipeline.gguf_model import GgufModel
from ftkit.pipeline.target import Target

# No gradient is kept, so a pass may hold more than one of training.
TOKENS_PER_PASS = 2048


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Attributes: target: That reads. ids: Of the prompt, ending where the answer begins."""

    target: Target
    ids: list[int]


def has_room(readings: Sequence[Reading], answer: str) -> bool:
    """Whether an answer and its stop token fit behind every one of these prompts."""
    for one in readings:
        length = one.target.context_length
        if length is not None and len(one.ids) + len(one.target.tokenizer(answer)["input_ids"]) + 1 > length:
            return False
    return True


def gives_likelihoods(target: Target) -> bool:
    """Whether a target says how likely a text is; llama.cpp's models only generate."""
    return not isinstance(target.model, GgufModel)


def answer_loss(target: Target, prompt: Sequence[int], answer: str, *, ended: bool = True) -> Loss:
    """Negative log-likelihood of an answer after a prompt, in nats a token.

    Args:
        target: Must `gives_likelihoods`.
        prompt: Token ids that the answer follows.
        answer: Tokenised by itself, as readers are trained on it.
        ended: Whether the token that ends an answer belongs to it.
    """
    if target.choose is not None:
        target.choose()
    loss: Loss = mean_loss(
        target.model, [answer_example(target, prompt, answer, ended=ended)], compute=target.compute
    )
    return loss


@torch.no_grad()
def answer_log_likelihoods(target: Target, pairs: Sequence[tuple[Sequence[int], str]]) -> list[float]:
    """``log p(answer | prompt)`` of each pair, in nats a token, the token that ends an answer included.

    Args:
        target: Must `gives_likelihoods`.
        pairs: Token ids of a prompt, and an answer to it.

    Returns:
        In the order of the pairs; shared passes change them by rounding alone.
    """
    if target.choose is not None:
        target.choose()
    target.model.eval()
    examples = [answer_example(target, prompt, answer, ended=True) for prompt, answer in pairs]
    device = next(target.model.parameters()).device
    found: dict[int, float] = {}
    groups: list[list[int]] = []
    for place in sorted(range(len(examples)), key=lambda place: -len(examples[place].input_ids)):
        longest = len(examples[groups[-1][0]].input_ids) if groups else 0
        # Not every target pads: soft prompts in front of the text do not.
        if groups and target.pads_prompts and (len(groups[-1]) + 1) * longest <= TOKENS_PER_PASS:
            groups[-1].append(place)
        else:
            groups.append([place])
    for group in groups:
        batch = collate([examples[place] for place in group])
        with arithmetic(device, target.compute):
            losses = row_losses(target.model, {name: value.to(device) for name, value in batch.items()})
        for place, loss in zip(group, losses.tolist(), strict=True):
            counted = sum(label != IGNORED for label in examples[place].labels)
            found[place] = -loss / counted
    return [found[place] for place in range(len(examples))]


def answer_example(target: Target, prompt: Sequence[int], answer: str, *, ended: bool) -> TokenizedExample:
    """A prompt and its answer, tokenised by itself; the loss is on the answer. Arguments as of `answer_loss`."""
    ids = list(target.tokenizer(answer, add_special_tokens=False)["input_ids"])
    stop = target.stop_token_ids[0]
    tail = [*ids, stop] if ended or not ids else ids
    return TokenizedExample(
        input_ids=[*prompt, *tail],
        labels=[*[IGNORED] * len(prompt), *tail],
        answer_start=len(prompt),
        stop_id=stop,
        answer=answer,
        place="",
    )
