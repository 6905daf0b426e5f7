"""Room in a model for tokens that were added to its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftkit.models.tokenizer import read_tokenizer


def added_token_pieces(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[int, tuple[int, ...]]:
    """What a tokenizer has more than the one in a model folder.

    Args:
        folder: A model folder.
        tokenizer: The same tokenizer, perhaps with tokens added to it.

    Returns:
        For each added id, ascending, the ids that the folder's tokenizer cuts its text into. Empty: none was added.

    Raises:
        ModelError: The folder's tokenizer cannot be read.
    """
    base = read_tokenizer(folder)
    known = base.added_tokens_decoder
    texts = {id_: str(token) for id_, token in sorted(tokenizer.added_tokens_decoder.items()) if id_ not in known}
    return {id_: tuple(base(text, add_special_tokens=False)["input_ids"]) for id_, text in texts.items()}


def extend_vocabulary(model: PreTrainedModel, pieces: Mapping[int, Sequence[int]]) -> None:
    """Give added tokens rows in the input embedding and the output head, in place.

    A table with spare rows keeps its size; one that is too short grows, and ``config.vocab_size`` with it. Rows
    that tokens had before keep every bit. On the meta device only the sizes change.

    Args:
        model: A causal language model, before any tuning method is attached.
        pieces: For each added id, ids that its text was cut into before (see `added_token_pieces`).
    """
    if not pieces:
        return
    before = model.get_input_embeddings().weight.shape[0]
    after = max(before, *(id_ + 1 for id_ in pieces))
    if after > before:
        model.resize_token_embeddings(after, mean_resizing=False)
    # Growing leaves random rows; those of ids that nobody added (gaps) become the mean row, from no pieces.
    rows: dict[int, Sequence[int]] = dict.fromkeys(range(before, after), ()) | dict(pieces)
    for table in vocabulary_tables(model):
        _fill_rows(table, rows, before)


def extended_table(table: Tensor, rows: int, pieces: Mapping[int, Sequence[int]]) -> Tensor:
    """One table of a base with rows for added tokens, as `extend_vocabulary` makes them.

    Args:
        table: (rows before, width), or (rows before,) for a bias; float.
        rows: How many there are to be.
        pieces: As for `extend_vocabulary`.
    """
    if not pieces:
        return table
    before = table.shape[0]
    grown = torch.cat([table, table.new_zeros(rows - before, *table.shape[1:])])
    _fill_rows(grown, dict.fromkeys(range(before, rows), ()) | dict(pieces), before)
    return grown


def vocabulary_tables(model: Any) -> list[Tensor]:
    """Every tensor with one row a token, a tied one once."""
    head = model.get_output_embeddings()
    found = [model.get_input_embeddings().weight, getattr(head, "weight", None), getattr(head, "bias", None)]
    return list({id(table): table for table in found if table is not None}.values())


def _fill_rows(table: Tensor, rows: Mapping[int, Sequence[int]], known: int) -> None:
    """Set each row to the mean of its pieces' rows.

    Args:
        table: (rows, width), or (rows,) for a bias; float.
        rows: For each row to set, the rows to take the mean of; all known ones where there are none.
        known: How many rows were there before.
    """
    # transformers draws new rows from a normal distribution around the mean row: another seed, another model, and
    # the base that is loaded for a merge or an export would have to draw them again just so. The mean of the pieces
    # is a function of base and text alone; it starts at what the model already makes of that text, and differs
    # from token to token (unless two are cut into the same pieces), which one mean row for all would not.
    with torch.no_grad():
        for row, cut in rows.items():
            sources = [piece for piece in cut if piece < known]  # some tokenizers know ids that have no row
            taken = table[sources] if sources else table[:known]
            # In float64, so that the order in which a device adds cannot be seen in the rounded result.
            table[row] = taken.mean(dim=0, dtype=torch.float64).to(table.dtype)
