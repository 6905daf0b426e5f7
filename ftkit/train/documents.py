"""Attention inside each document of a pack, at the cost of the documents alone.

Told by positions that start anew, transformers keeps the documents of a pack apart with a mask over all pairs of
their tokens. That is exact, but scaled-dot-product attention computes the masked pairs too. Here the same mask is
asked where the documents lie, and each is attended to by itself, by the kernel that it would meet unpacked. LoRA on
SmolLM2-135M on a CPU, in packs of 512 tokens: 3 to 8 % fewer tokens per second than unpacked with the mask over all
pairs, 8 % more this way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "ftkit_documents"  # of this attention in transformers' tables


@dataclass(frozen=True, kw_only=True)
class Documents:
    """What the layers are given in place of a mask.

    Attributes:
        lengths: Tokens of each document, in order.
        masks: For each document which of its own pairs may meet, (1, 1, tokens, tokens); None for every pair that is
            causal. A window shorter than the document, for one, needs a mask.
    """

    lengths: list[int]
    masks: list[Tensor | None]


@contextlib.contextmanager
def documents_cut(model: Any) -> Iterator[None]:
    """A block in which packs are attended to document by document, where the model's attention allows it.

    Only scaled-dot-product attention on a CPU is replaced. Other kinds, such as the eager one of Gemma 2, and GPUs,
    where many small kernels take longer than a mask, keep what transformers does.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    if before != "sdpa" or next(base.parameters()).device.type != "cpu":
        yield
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _mask(
    *, q_length: int, kv_length: int, mask_function: Any, device: Any = "cpu", **settings: Any
) -> Tensor | Documents | None:
    """The mask that scaled-dot-product attention would get, as `Documents` where it is that of one pack."""
    # Causality may not be left to the kernel: so transformers speaks of packs, and of little else.
    one_pack = settings.get("allow_is_causal_skip") is False and not settings.get("use_vmap")
    one_pack = one_pack and settings["batch_size"] == 1 and settings.get("attention_mask") is None
    if not one_pack or q_length != kv_length or settings.get("q_offset") or settings.get("kv_offset"):
        return sdpa_mask(
            q_length=q_length, kv_length=kv_length, mask_function=mask_function, device=device, **settings
        )
    # A causal token that does not see its neighbour sees nothing before itself: there a document begins.
    later = torch.arange(1, q_length, device=device)
    zero = torch.zeros((), dtype=torch.long, device=device)
    apart = ~mask_function(zero, zero, later, later - 1)
    borders = [0, *later[apart].tolist(), q_length]
    lengths = [end - start for start, end in pairwise(borders)]
    masks = []
    for start, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        own = sdpa_mask(
            batch_size=1, q_length=length, kv_length=length, q_offset=start, kv_offset=start,
            mask_function=mask_function, allow_is_causal_skip=False, device=device,
        )  # fmt: skip
        causal = own is not None and torch.equal(own, torch.ones_like(own).tril())
        masks.append(None if causal else own)
    return Documents(lengths=lengths, masks=masks)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **settings: Any
) -> tuple[Tensor, None]:
    """Scaled-dot-product attention; of `Documents`, of each by itself.

    Args:
        module: The layer.
        query: (1, heads, tokens, width); ``key`` and ``value`` too, with fewer heads where they are shared.
        key: See above.
        value: See above.
        attention_mask: From `_mask`.
        settings: Dropout, scaling and the like.

    Returns:
        (1, tokens, heads, width).
    """
    if not isinstance(attention_mask, Documents):
        whole: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return whole
    # One split and one concatenation: a slice for each document would write a whole zero gradient for each.
    pieces = zip(
        *(states.split(attention_mask.lengths, dim=2) for states in (query, key, value)),
        attention_mask.masks,
        strict=True,
    )
    return torch.cat([sdpa_attention_forward(module, *piece, **settings)[0] for piece in pieces], dim=1), None
