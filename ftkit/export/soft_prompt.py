"""A soft prompt in a merged export: tokens that stand in front of every text and that are never sampled."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftkit.errors import ModelError, RecipeError, VerificationError
from ftkit.export.probes import MAX_TOKENS, Probes
from ftkit.export.token_contract import Prompt, make_contract
from ftkit.export.trained import Trained
from ftkit.methods import Method
from ftkit.models.prompt_tokens import add_prompt_tokens, set_prompt_rows
from ftkit.models.tokenizer import read_tokenizer, text_prefix
from ftkit.recipe.sections import MERGED_KINDS

_ADAPTER_ONLY = "Export the adapter alone: export: [adapter]."
# By how much a prompt's token stays below the least likely real one, as a share of the spread of real logits. More
# would cost more where a position is unlike all that were measured: the row's length multiplies the surprise.
_SPARE = 0.1
_STEPS = 1000
_AT_ZERO = 1e-6  # of the length of the states: what is next to zero in their hull is zero


def as_exported(trained: Trained, kind: str) -> Trained:
    """A trained model with the tokenizer that an export of this kind has.

    Only merged exports of a soft prompt have another than training had: its learned positions are tokens of it.

    Raises:
        RecipeError: They cannot be, see `tokens_in_front`.
    """
    if not needs_tokens(trained.method, kind):
        return trained
    tokenizer, ids = tokens_in_front(trained.tokenizer, trained.method.virtual_tokens, trained.base.folder)
    added = trained.added_tokens | dict.fromkeys(ids, ())
    return replace(trained, tokenizer=tokenizer, added_tokens=added, prefix_ids=ids)


def needs_tokens(method: Method, kind: str) -> bool:
    """Whether an export of this kind makes tokens of the method's learned positions."""
    return method.virtual_tokens > 0 and kind in MERGED_KINDS


def tokens_in_front(
    tokenizer: PreTrainedTokenizerBase, count: int, folder: Path
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """A tokenizer whose texts and chats are those of another with new tokens in front, BOS included; proven so.

    Args:
        tokenizer: That the model was trained with.
        count: Of tokens.
        folder: Of the base model, for messages.

    Returns:
        The new tokenizer and the ids of its new tokens.

    Raises:
        RecipeError: Tokenizer or template do something else to a text that these tokens stand before, or cannot be
            made to write them.
    """
    try:
        own, ids = add_prompt_tokens(tokenizer, count, folder)
    except ModelError as error:
        raise _impossible(str(error).splitlines()[0]) from None
    before, after = make_contract(tokenizer), make_contract(own)
    for was, now in zip(_prompts(before), _prompts(after), strict=True):
        wanted = None if was.ids is None else ids + was.ids
        if now.ids != wanted:
            raise _impossible(f"with its tokens in front, {was.name[:60]!r} comes to other tokens than in training")
    with tempfile.TemporaryDirectory(prefix="ftkit-tokens-") as scratch:
        own.save_pretrained(scratch)
        read = text_prefix(read_tokenizer(Path(scratch)))
    if read != ids + text_prefix(tokenizer):
        raise _impossible(
            f"its tokenizer, {type(tokenizer).__name__}, forgets what stands in front when it is stored"
        )
    return own, ids


def merge_prompt(trained: Trained, merged: PreTrainedModel) -> dict[str, Any]:
    """Write the learned embeddings into a plain model, as tokens that it never samples.

    Args:
        trained: With the export's tokenizer, see `as_exported`.
        merged: With room for its tokens, in float32; changed in place.

    Returns:
        For the manifest's notes; empty for a method without a soft prompt.

    Raises:
        ModelError: The model has no place for embeddings or for an output of their own.
        VerificationError: Somewhere a prompt's token would not be the least likely one.
    """
    if not trained.prefix_ids:
        return {}
    embeddings = trained.method.virtual_embeddings(trained.model)
    assert embeddings is not None, "a method with virtual tokens has their embeddings"
    set_prompt_rows(merged, trained.prefix_ids, embeddings)
    known = trained.probes.trained[0].shape[-1]
    rows = merged.get_input_embeddings().weight.shape[0]
    # Rows that only fill the gap between the model's vocabulary and the new ids are as little to be sampled.
    silent = sorted({*trained.prefix_ids, *range(known, rows)})
    measured = silence(merged, silent, _sequences(trained), len(trained.prefix_ids))
    return {
        "soft_prompt": {
            "tokens": len(trained.prefix_ids),
            "output_rows": "bias" if _bias(merged) is not None else "opposite to the final hidden states",
            "logit_margin": measured.margin,
            "least_cosine": measured.least_cosine,
            "positions": measured.positions,
        }
    }


@dataclass(frozen=True, kw_only=True)
class Silence:
    """How surely some tokens are never sampled.

    Attributes:
        margin: Their highest logit stays this far below the lowest of all others, at every measured position.
        least_cosine: Least cosine between a final hidden state and the direction that their rows are opposite to; 0
            where a bias does it.
        positions: Measured.
    """

    margin: float
    least_cosine: float
    positions: int


@torch.no_grad()
def silence(model: Any, ids: Sequence[int], sequences: Sequence[Sequence[int]], skip: int) -> Silence:
    """Give tokens output rows whose logits lie below all others.

    A head with a bias does so wherever the model looks. Without one, a logit is the product of a row and the final
    hidden state, so the rows have to be opposite to every state: to the direction whose least cosine with the states
    is greatest. Trained models have one, as their states share large components.

    Args:
        model: With a head of its own; its rows are changed in place.
        ids: Of the tokens.
        sequences: Token ids on which to measure.
        skip: Leading tokens of each sequence after which nothing is sampled.

    Raises:
        VerificationError: No direction is opposite to all states, or a logit that the model caps is not lower.
    """
    head = model.get_output_embeddings()
    others = torch.ones(head.weight.shape[0], dtype=torch.bool)
    others[list(ids)] = False
    states, lows, spreads = _at_the_head(model, sequences, skip, others)
    spare = _SPARE * float(spreads.mean())
    bias = _bias(model)
    if bias is not None:
        head.weight[list(ids)] = 0.0
        bias[list(ids)] = lows.min() - spare
        cosine = 0.0
    else:
        direction, cosine = _common_direction(states)
        if cosine <= 0:
            raise VerificationError(
                f"the soft prompt's tokens cannot be kept from being sampled: the model's final hidden states, at "
                f"{len(states)} positions, have no direction in common",
                fix=_ADAPTER_ONLY,
            )
        along = states @ direction
        # At least as far below zero as below the others, for states where those are lower than at any measured one.
        length = torch.maximum(((spare - lows) / along).max(), spare / along.mean())
        head.weight[list(ids)] = -direction * length
    margins = torch.cat([_margin(logits, ids, others) for logits in _logits(model, sequences, skip)])
    if float(margins.min()) <= 0:
        raise VerificationError(
            f"the soft prompt's tokens cannot be kept from being sampled: at {int((margins <= 0).sum())} of "
            f"{len(margins)} positions one of them is not below every other token",
            fix=_ADAPTER_ONLY,
        )
    return Silence(margin=float(margins.min()), least_cosine=cosine, positions=len(margins))


def _common_direction(states: Tensor) -> tuple[Tensor, float]:
    """The unit vector with the greatest least cosine to all states: the point of their hull that is next to zero.

    Args:
        states: (positions, width), float32.

    Returns:
        The vector and that cosine, which is not positive where the hull has zero inside.

    Source:
        Gilbert 1966, "An iterative procedure for computing the minimum of a quadratic form on a convex set".
    """
    units = torch.nn.functional.normalize(states.double(), dim=1)
    point = units.mean(dim=0)
    for _ in range(_STEPS):
        towards = units[(units @ point).argmin()] - point
        length = towards @ towards
        if float(length) == 0:
            break
        point = point + (-(point @ towards) / length).clamp(0, 1) * towards
    if float(point.norm()) < _AT_ZERO:
        return torch.zeros_like(states[0]), 0.0
    direction = point / point.norm()
    return direction.to(states.dtype), float((units @ direction).min())


def _at_the_head(
    model: Any, sequences: Sequence[Sequence[int]], skip: int, others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Final hidden states, the lowest real logit, and the spread of real logits, before any cap on them."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def keep(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        real = output[0, skip:, others]
        low = real.min(dim=-1).values
        found.append((inputs[0][0, skip:].clone(), low, real.max(dim=-1).values - low))

    hook = model.get_output_embeddings().register_forward_hook(keep)
    try:
        for _ in _logits(model, sequences, skip):
            continue
    finally:
        hook.remove()
    states, lows, spreads = (torch.cat(part) for part in zip(*found, strict=True))
    return states, lows, spreads


def _logits(model: Any, sequences: Sequence[Sequence[int]], skip: int) -> Iterator[Tensor]:
    model.eval()
    for ids in sequences:
        yield model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, skip:].float()


def _margin(logits: Tensor, ids: Sequence[int], others: Tensor) -> Tensor:
    return logits[:, others].min(dim=-1).values - logits[:, list(ids)].max(dim=-1).values


def _bias(model: Any) -> Tensor | None:
    bias: Tensor | None = getattr(model.get_output_embeddings(), "bias", None)
    return bias


def _sequences(trained: Trained) -> list[list[int]]:
    """The probes, the greedy answers, and the texts of the token contract, with the prompt's tokens in front."""
    probes: Probes = trained.probes
    front = trained.prefix_ids
    answers = zip(probes.prompts, probes.greedy, strict=True)
    own = [*probes.ids, *(prompt + greedy for prompt, greedy in answers)]
    contract = [
        prompt.ids[: MAX_TOKENS + len(front)] for prompt in _prompts(make_contract(trained.tokenizer)) if prompt.ids
    ]
    return [*(front + ids for ids in own), *contract]


def _prompts(contract: Any) -> tuple[Prompt, ...]:
    return (*contract.conversations, *contract.texts)


def _impossible(because: str) -> RecipeError:
    return RecipeError(f"export: this soft prompt cannot be merged into its base: {because}", fix=_ADAPTER_ONLY)
