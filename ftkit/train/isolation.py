"""Whether examples may share a sequence: decided by the recipe, by the method, and by a proof on the model itself.

Which architectures keep the documents of a pack apart cannot be read off their names. transformers' attention does,
told by positions that start anew, wherever a model hands these on to it. Models that carry a state along (Mamba,
Qwen3-Next, RecurrentGemma), mix neighbouring tokens (LFM2), or count positions in their own way (OPT, Falcon) do not,
and say nothing. So the model is run on a pack before anything is trained in packs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftkit.errors import RecipeError
from ftkit.models.precision import arithmetic
from ftkit.train.documents import documents_cut

PROVEN = "each example of a pack is computed as if it were alone, proven on this model"
# bitsandbytes decides for all rows of a pass together which activations are outliers. On SmolLM2-135M the logits
# of three short texts were off by 6 to 19 % in a pack, by 6 to 23 % side by side, and by nothing with exact products.
PROVEN_BUT_FOR_ROUNDING = (
    "each example of a pack is computed as if it were alone, proven on this model with exact products; its 8-bit "
    "products round by what else is in a pass, packed or not"
)
# Largest relative distance, token by token, between the logits of a document in a pack and alone: sums of another
# shape round differently. Measured on SmolLM2-135M: 3e-6 in float32, 0.03 in bfloat16, with the document's own kernel
# 0 in both. What computes another function was found at 0.8 and above; influences are judged without tolerance.
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
# Windows up to this many tokens are exceeded by the documents of the proof. Longer ones would take too long; with
# them, a window counted over the pack and one counted in the document are the same for every document so short.
LONGEST_WINDOW = 64
WINDOWS = ("sliding_window", "attention_window_size", "window_size", "attention_chunk_size")


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Attributes: on: whether examples share sequences. reason: why, or why not."""

    on: bool
    reason: str


def choose_packing(
    asked: bool | Literal["auto"],
    *,
    method_refuses: str | None,
    micro_batch_size_is_set: bool,
    proof: Callable[[], str | None],
    exact_forward: bool = True,
) -> Packing:
    """Decide whether a run packs.

    Args:
        asked: The recipe's ``data.packing``.
        method_refuses: Why the method cannot train in packs; None if it can.
        micro_batch_size_is_set: Whether the recipe says how many rows one forward pass has.
        proof: Gives why the model cannot train in packs, None if it can; asked last, as it runs the model.
        exact_forward: The method's fact; if not, the proof must be about exact products.

    Raises:
        RecipeError: Packing is asked for and cannot be had.
    """
    if asked is False:
        return Packing(on=False, reason="data.packing is false")
    against = method_refuses
    if against is None and micro_batch_size_is_set:
        against = "train.micro_batch_size asks for passes of so many rows, and a pack is one row"
    if against is None:
        against = proof()
    if against is None:
        return Packing(on=True, reason=PROVEN if exact_forward else PROVEN_BUT_FOR_ROUNDING)
    if asked is True:
        raise RecipeError(f"data.packing: true is not possible: {against}", fix="Set data.packing to auto or false.")
    return Packing(on=False, reason=against)


def isolates(model: nn.Module, *, compute: torch.dtype) -> str | None:
    """Prove on a model that the documents of a pack do not touch each other.

    Three short random documents are run alone, as rows are in training, and together, as packs are. The logits of
    each must be the same up to rounding; and those of the middle one must have no gradient, not a small one but none,
    with respect to the others' embeddings, so that even an influence below rounding is found. What has no gradient,
    such as the choice of 8-bit products' outliers, only the first of the two can find.

    Args:
        model: A causal language model, the method attached; in any mode, and left in it.
        compute: dtype of the matrix products, as in training.

    Returns:
        What was found against it; None if the documents are isolated.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return _fault(model, compute)
    finally:
        for module, mode in modes:
            module.training = mode


def _fault(model: Any, compute: torch.dtype) -> str | None:
    device = next(model.parameters()).device
    documents = _documents(model.config, device)
    with torch.no_grad(), arithmetic(device, compute):
        alone = [
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()
            for ids in documents
        ]
    lengths = [ids.shape[1] for ids in documents]
    try:
        with documents_cut(model), arithmetic(device, compute):
            together, influence = _packed(model, documents)
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"the model cannot compute a pack: {first}"
    tolerance = TOLERANCES[compute]
    for number, (mine, packed) in enumerate(zip(alone, together.split(lengths), strict=True), start=1):
        distance = ((packed - mine).norm(dim=-1) / mine.norm(dim=-1)).max().item()
        if not distance <= tolerance:  # so that NaN counts as a difference
            return (
                f"the model does not compute the examples of a pack as it does alone: the logits of example {number} "
                f"of 3 are off by {distance:.1%}, and rounding explains {tolerance:.1%}"
            )
    first, _, last = influence.split(lengths)
    if first.count_nonzero() or last.count_nonzero():
        return "in this model an example of a pack depends on its neighbours"
    return None


def _packed(model: Any, documents: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits of a pack, and how strongly those of its middle document depend on the embedding of each token.

    Returns:
        (tokens, vocabulary) and (tokens, width).
    """
    lengths = [ids.shape[1] for ids in documents]
    positions = torch.cat([torch.arange(length, device=documents[0].device) for length in lengths]).unsqueeze(0)
    embedded: list[Tensor] = []

    def take(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = model.get_input_embeddings().register_forward_hook(take)
    try:
        with torch.enable_grad():
            ids = torch.cat(documents, dim=1)
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
            middle = logits.split(lengths)[1]
            (influence,) = torch.autograd.grad(middle.square().mean(), embedded[0])
    finally:
        handle.remove()
    return logits.detach(), influence[0]


def _documents(config: Any, device: torch.device) -> list[Tensor]:
    """Three documents of random tokens, (1, tokens) each, longer than the model's windows where these are short."""
    config = config.get_text_config()
    windows = [getattr(config, name, None) for name in WINDOWS]
    short = [size for size in windows if isinstance(size, int) and 0 < size <= LONGEST_WINDOW]
    lengths = [max([8, *short]) + more for more in (4, 1, 2)]
    # From a generator of its own: a proof leaves no trace in what training draws.
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, sum(lengths)), generator=generator).to(device)
    borders = accumulate(lengths, initial=0)
    return [ids[:, start : start + length] for start, length in zip(borders, lengths, strict=False)]
