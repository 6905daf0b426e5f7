"""Examples of unequal length into rectangular batches: padded, or packed behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.packing import best_fit


def collate(examples: Sequence[TokenizedExample]) -> dict[str, torch.Tensor]:
    """Pad on the right.

        input_ids       [[5, 6, 7], [8, 9, 0]]
        attention_mask  [[1, 1, 1], [1, 1, 0]]
        labels          [[-100, 6, 7], [-100, 9, -100]]

    The pad id is 0 whatever the tokenizer's: padding is told by position, in the mask and the labels, so no token
    that means something can be taken for it.

    Returns:
        Three int64 tensors, (examples, longest).
    """
    width = max(len(example.input_ids) for example in examples)
    shape = (len(examples), width)
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.tensor(example.input_ids)
        attention_mask[row, :length] = 1
        labels[row, :length] = torch.tensor(example.labels)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def collate_packed(examples: Sequence[TokenizedExample], *, pack_length: int) -> dict[str, Any]:
    """Put the examples of one optimizer step behind one another, without padding, pack after pack.

        input_ids     [[5, 6, 7, 8, 9]]
        position_ids  [[0, 1, 2, 0, 1]]           of each token within its example
        labels        [[-100, 6, 7, -100, 9]]     nothing predicts the first token of an example
        pack_lengths  [5]

    Without an attention mask, positions that start anew tell transformers where an example ends, and no token sees
    beyond the example that it belongs to (see `ftkit.train.isolation` for where that holds).

    Args:
        examples: All of one step.
        pack_length: Most tokens of a pack; if the longest example has more, as many as it has.

    Returns:
        Three int64 tensors, (1, tokens of all packs), and the tokens of each pack, for `split_packs`.
    """
    lengths = [len(example.input_ids) for example in examples]
    packs = best_fit(lengths, max(pack_length, *lengths))
    order = [examples[index] for pack in packs for index in pack]
    labels = [label for example in order for label in (IGNORED, *example.labels[1:])]
    return {
        "input_ids": torch.tensor([[token for example in order for token in example.input_ids]]),
        "position_ids": torch.cat([torch.arange(len(example.input_ids)) for example in order]).unsqueeze(0),
        "labels": torch.tensor([labels]),
        "pack_lengths": [sum(lengths[index] for index in pack) for pack in packs],
    }


def split_packs(step: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Cut what `collate_packed` gave into its packs, each the batch of one forward pass."""
    names = [name for name in step if name != "pack_lengths"]
    pieces = [step[name].split(step["pack_lengths"], dim=1) for name in names]
    return [dict(zip(names, pack, strict=True)) for pack in zip(*pieces, strict=True)]
