"""Examples of unequal length into one rectangular batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ftkit.data.tokenize import IGNORED, TokenizedExample


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
