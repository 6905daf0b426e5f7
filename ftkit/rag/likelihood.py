"""How likely a generator finds a text as the answer to a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.evaluate.loss import Loss, mean_loss
from ftkit.pipeline.gguf_model import GgufModel
from ftkit.pipeline.target import Target


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
    ids = list(target.tokenizer(answer, add_special_tokens=False)["input_ids"])
    stop = target.stop_token_ids[0]
    tail = [*ids, stop] if ended or not ids else ids
    if target.choose is not None:
        target.choose()
    example = TokenizedExample(
        input_ids=[*prompt, *tail],
        labels=[*[IGNORED] * len(prompt), *tail],
        answer_start=len(prompt),
        stop_id=stop,
        answer=answer,
        place="",
    )
    loss: Loss = mean_loss(target.model, [example], compute=target.compute)
    return loss
