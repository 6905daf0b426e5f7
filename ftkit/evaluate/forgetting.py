"""What tuning cost elsewhere: general text, and probes of what the base knew.

Bits per byte compare models of different tokenizers; the divergence KL(base, tuned) says how far the tuned model's
next-token distributions have moved at all, gains and losses alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ftkit.data.collate import collate
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.evaluate.general import General
from ftkit.evaluate.loss import row_losses
from ftkit.models.precision import arithmetic
from ftkit.models.tokenizer import text_prefix

WINDOW = 512  # tokens of general text that are read at once
MOST_TOKENS = 16_384  # of general text
POSITIONS = 256  # at which whole distributions are kept and compared
TOKENS_PER_PASS = 2048


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a model does.

    Attributes:
        bits_per_byte: Of general text; None without any.
        choice_accuracy: Share of questions whose right answer is the likeliest for its length in bytes.
        choice_likelihood: Mean probability of the right answer among those to choose from, each for its length.
        end_accuracy: Share of texts whose right end is, token by token, the likeliest.
        end_nll: Nats a token of the right ends.
        text_tokens: Of general text that were read.
    """

    bits_per_byte: float | None
    choice_accuracy: float | None
    choice_likelihood: float | None
    end_accuracy: float | None
    end_nll: float | None
    text_tokens: int


class Forgetting:
    """Measures one model before and after.

    Args:
        general: What on.
        tokenizer: Of the model.
        compute: dtype of the matrix products.
    """

    def __init__(self, general: General, tokenizer: PreTrainedTokenizerBase, compute: torch.dtype) -> None:
        self._general, self._tokenizer, self._compute = general, tokenizer, compute
        self._prefix = text_prefix(tokenizer)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> Standing:
        """All figures of a model as it is; it is given back in its mode."""
        was_training = model.training
        model.eval()
        try:
            windows = list(self._windows())
            nats, text_tokens, text_bytes = 0.0, 0, 0
            for (row, length), loss in zip(windows, self._losses(model, [row for row, _ in windows]), strict=True):
                nats, text_tokens, text_bytes = nats + loss, text_tokens + row.supervised_tokens, text_bytes + length
            likeliest, mass = self._choices(model)
            exact, end_nll = self._ends(model)
        finally:
            model.train(was_training)
        return Standing(
            bits_per_byte=nats / math.log(2) / text_bytes if text_bytes else None,
            choice_accuracy=likeliest,
            choice_likelihood=mass,
            end_accuracy=exact,
            end_nll=end_nll,
            text_tokens=text_tokens,
        )

    @torch.no_grad()
    def distributions(self, model: nn.Module) -> Tensor:
        """Log-probabilities of the next token at up to `POSITIONS` places of the general text.

        Returns:
            (places, vocabulary), float32, on the CPU; no row where there is no text.
        """
        was_training = model.training
        model.eval()
        found = []
        rows = [row for row, _ in self._windows()]
        left = POSITIONS
        try:
            for number, row in enumerate(rows):
                share = -(-left // (len(rows) - number))
                taken = self._logits(model, row)
                step = max(1, len(taken) // max(1, min(share, len(taken))))
                chosen = taken[::step][:share]
                found.append(chosen.log_softmax(dim=-1).cpu())
                left -= len(chosen)
                if left <= 0:
                    break
        finally:
            model.train(was_training)
        return torch.cat(found) if found else torch.zeros(0, 0)

    def _logits(self, model: nn.Module, row: TokenizedExample) -> Tensor:
        device = next(model.parameters()).device
        ids = torch.tensor([row.input_ids], device=device)
        with arithmetic(device, self._compute):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        # From the end: a soft prompt puts logits of its own in front of the text's.
        return logits[0, -ids.shape[1] : -1].float()

    def _windows(self) -> Iterator[tuple[TokenizedExample, int]]:
        """Pieces of the texts, each with its length in bytes."""
        total = 0
        for text in self._general.texts:
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, spans = encoded["input_ids"], encoded["offset_mapping"]
            for start in range(0, len(ids), WINDOW):
                piece = ids[start : start + WINDOW]
                # The first token of a text without anything in front of it cannot be predicted.
                known = 0 if self._prefix else 1
                if len(piece) <= known or total >= MOST_TOKENS:
                    continue
                begins, ends = spans[start + known][0], spans[start + len(piece) - 1][1]
                yield self._row(self._prefix + piece[:known], piece[known:]), len(text[begins:ends].encode())
                total += len(piece)

    def _row(self, given: Sequence[int], wanted: Sequence[int]) -> TokenizedExample:
        return TokenizedExample(
            input_ids=[*given, *wanted],
            labels=[*[IGNORED] * len(given), *wanted],
            answer_start=len(given),
            stop_id=-1,
            answer="",
            place="",
        )

    def _after(self, context: str, end: str) -> TokenizedExample:
        """The end after its context, cut into tokens as the whole text is, where the two can be told apart."""
        before = self._prefix + self._tokenizer(context, add_special_tokens=False, verbose=False)["input_ids"]
        both = (
            self._prefix + self._tokenizer(f"{context} {end}", add_special_tokens=False, verbose=False)["input_ids"]
        )
        if both[: len(before)] == before and len(both) > len(before):
            return self._row(before, both[len(before) :])
        return self._row(before, self._tokenizer(f" {end}", add_special_tokens=False, verbose=False)["input_ids"])

    def _choices(self, model: nn.Module) -> tuple[float | None, float | None]:
        probes = self._general.choices
        if not probes:
            return None, None
        rows = [self._after(f"{one.query}\nAnswer:", choice) for one in probes for choice in one.choices]
        losses = iter(self._losses(model, rows))
        right, mass = 0, 0.0
        for one in probes:
            scores = torch.tensor(
                [-next(losses) / len(choice.encode()) for choice in one.choices], dtype=torch.float64
            )
            right += int(scores.argmax()) == one.gold
            mass += float(scores.softmax(dim=0)[one.gold])
        return right / len(probes), mass / len(probes)

    def _ends(self, model: nn.Module) -> tuple[float | None, float | None]:
        if not self._general.ends:
            return None, None
        rows = [self._after(context, end) for context, end in self._general.ends]
        exact, nats, tokens = 0, 0.0, 0
        for row, loss in zip(rows, self._losses(model, rows), strict=True):
            wanted = torch.tensor(row.input_ids[row.answer_start :])
            said = self._logits(model, row)[-len(wanted) :].argmax(dim=-1).cpu()
            exact += bool((said == wanted).all())
            nats, tokens = nats + loss, tokens + len(wanted)
        return exact / len(rows), nats / tokens

    def _losses(self, model: nn.Module, rows: Sequence[TokenizedExample]) -> list[float]:
        """Nats over the supervised tokens of each row, in their order."""
        device = next(model.parameters()).device
        found: dict[int, float] = {}
        for group in _groups([len(row.input_ids) for row in rows]):
            batch = {name: value.to(device) for name, value in collate([rows[at] for at in group]).items()}
            with arithmetic(device, self._compute):
                found |= dict(zip(group, row_losses(model, batch).tolist(), strict=True))
        return [found[at] for at in range(len(rows))]


def divergence(base: Tensor, tuned: Tensor) -> float | None:
    """Mean KL(base, tuned), nats a token; None where there is no text.

    Args:
        base: As from `Forgetting.distributions`.
        tuned: Of the same text; further columns, of tokens that were added, are left aside.
    """
    if not len(base):
        return None
    shared = tuned[:, : base.shape[1]].double()
    return float((base.double().exp() * (base.double() - shared)).sum(dim=1).mean())


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of similar length together, each group within the token budget."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= TOKENS_PER_PASS:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups
