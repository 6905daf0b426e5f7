"""What a run minimises, and what is to be known of its rows; the loop around it is the same for all.

`CausalLM` is next-token prediction on what the data supervises. Retrieval has objectives of its own
(`ftkit.rag.training`), over a generator and its encoders together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ftkit.data.collate import collate, collate_packed, split_packs
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.evaluate.loss import mean_loss, summed_loss
from ftkit.models.precision import arithmetic
from ftkit.train.batches import tokens_per_pack
from ftkit.train.soundness import some
from ftkit.train.spec import FitSpec


class Row(Protocol):
    """One example of a data set.

    Attributes:
        place: File and line.
    """

    @property
    def place(self) -> str: ...  # noqa: D102


class Objective(Protocol):
    """What `ftkit.train.trainer.fit` minimises.

    Attributes:
        must_learn: Whether a first batch whose loss is never lower afterwards means that nothing is learnt.
    """

    must_learn: bool

    def collate(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Make one batch of some rows."""
        ...

    def passes(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Cut a batch into forward passes."""
        ...

    def items(self, batch: dict[str, Any]) -> int:
        """How much a batch counts in its step's mean: supervised tokens, or questions."""
        ...

    def tokens(self, batch: dict[str, Any]) -> tuple[int, int]:
        """Tokens of a pass that are not padding, and how many of them are supervised."""
        ...

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """Sum over the items of a pass, a scalar with gradient."""
        ...

    def mean_loss(self, model: nn.Module, rows: Sequence[Any]) -> float:
        """Mean over the items of a set, without dropout and without gradient."""
        ...

    def size(self, row: Any) -> int:
        """Tokens of one row."""
        ...

    def masked(self, rows: Sequence[Any]) -> str:
        """Which rows can teach nothing, in words; empty for none."""
        ...

    def row_fault(self, rows: Sequence[Any]) -> tuple[str, str] | None:
        """What is wrong with the rows of a step as a whole, and how to mend it."""
        ...

    def guessing(self, model: nn.Module) -> float:
        """The loss of a model that knows nothing."""
        ...

    def clipped_apart(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Parameters whose gradients are scaled down by a norm of their own."""
        ...


class CausalLM:
    """Mean cross-entropy over the supervised tokens of a step, whatever it is cut into.

    Args:
        compute: dtype of the matrix products.
        prompts_masked: Whether prompts are not to count; only checked.
        pack_length: Tokens of a pack, where the examples of a step share sequences; None for rows.
    """

    must_learn = True

    def __init__(self, compute: torch.dtype, *, prompts_masked: bool = False, pack_length: int | None = None) -> None:
        self._compute, self._prompts_masked, self._packs = compute, prompts_masked, pack_length is not None
        join: Callable[[Sequence[TokenizedExample]], dict[str, Any]] = collate
        if pack_length is not None:
            join = functools.partial(collate_packed, pack_length=pack_length)
        self._join = join

    def collate(self, rows: Sequence[TokenizedExample]) -> dict[str, Any]:
        """See `ftkit.data.collate`."""
        return self._join(rows)

    def passes(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """One, or one for each pack."""
        return list(split_packs(batch)) if self._packs else [batch]

    def items(self, batch: dict[str, Any]) -> int:
        """Supervised tokens."""
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def tokens(self, batch: dict[str, Any]) -> tuple[int, int]:
        """A pack has no padding, and no mask that would say so."""
        mask = batch.get("attention_mask")
        return batch["input_ids"].numel() if mask is None else int(mask.sum()), self.items(batch)

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """See `ftkit.evaluate.loss.summed_loss`."""
        with arithmetic(batch["input_ids"].device, self._compute):
            return summed_loss(model, batch)

    def mean_loss(self, model: nn.Module, rows: Sequence[TokenizedExample]) -> float:
        """See `ftkit.evaluate.loss.mean_loss`."""
        return float(mean_loss(model, rows, compute=self._compute).mean)

    def size(self, row: TokenizedExample) -> int:
        """Its tokens."""
        return len(row.input_ids)

    def masked(self, rows: Sequence[TokenizedExample]) -> str:
        """Rows without a supervised token."""
        places = [row.place for row in rows if all(label == IGNORED for label in row.labels[1:])]
        return f"no token counts towards the loss in {some(places)}" if places else ""

    def row_fault(self, rows: Sequence[TokenizedExample]) -> tuple[str, str] | None:
        """Ends of answers that do not count, or prompts that do."""
        if masked := self.masked(rows):
            return masked, "Look at them with `ftkit data FILE show`; they teach nothing."
        places = f"Its rows: {some([row.place for row in rows])}."
        answered = [row for row in rows if row.answer is not None]
        # What was cut to data.max_length has no end any more, and says nothing about it.
        ended = [row for row in answered if row.stop_id in row.input_ids[row.answer_start :]]
        if ended and not any(row.stop_id in row.labels[row.answer_start :] for row in ended):
            return (
                "the token that ends an answer counts in none of its rows, so the model would never learn to stop. "
                f"{places}",
                "Its label is lost where these rows are made; look at them with `ftkit data FILE show`.",
            )
        asked = [row for row in answered if row.answer_start > 1]
        if self._prompts_masked and asked and all(IGNORED not in row.labels[1:] for row in asked):
            return (
                f"every token counts towards the loss, prompts included. {places}",
                "The masks of these rows are lost; with data.train_on: all this would be as asked.",
            )
        return None

    def guessing(self, model: Any) -> float:
        """Of all tokens being equally likely."""
        return math.log(int(model.config.get_text_config().vocab_size))

    def clipped_apart(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """All parameters together."""
        return [list(model.parameters())]


def causal(spec: FitSpec, device: torch.device) -> CausalLM:
    """What a run minimises unless it is told otherwise."""
    pack_length = tokens_per_pack(device.type) if spec.packing else None
    return CausalLM(spec.compute, prompts_masked=spec.prompts_masked, pack_length=pack_length)
