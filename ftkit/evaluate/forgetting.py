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
class Details:
    """How a model does, piece by piece.

    Attributes:
        texts: Number of the text that each piece is of.
        nats: Of each piece.
        sizes: Bytes of each piece.
        choices: Whether the right answer of each question is the likeliest.
    """

    texts: tuple[int, ...]
    nats: tuple[float, ...]
    sizes: tuple[int, ...]
    choices: tuple[bool, ...]


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


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A piece of general text: of which text, as tokens, and its bytes."""

    text: int
    row: TokenizedExample
    size: int


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
            for one, loss in zip(windows, self._losses(model, [one.row for one in windows]), strict=True):
                nats, text_bytes = nats + loss, text_bytes + one.size
                text_tokens += one.row.supervised_tokens
            scored = self._scored_choices(model)
            exact, end_nll = self._ends(model)
        finally:
            model.train(was_training)
        return Standing(
            bits_per_byte=nats / math.log(2) / text_bytes if text_bytes else None,
            choice_accuracy=sum(right for right, _ in scored) / len(scored) if scored else None,
            choice_likelihood=sum(mass for _, mass in scored) / len(scored) if scored else None,
            end_accuracy=exact,
            end_nll=end_nll,
            text_tokens=text_tokens,
        )

    @torch.no_grad()
    def details(self, model: nn.Module) -> Details:
        """What `measure` sums up, of general text and of choices; the model is given back in its mode."""
        was_training = model.training
        model.eval()
        try:
            windows = list(self._windows())
            nats = self._losses(model, [one.row for one in windows])
            scored = self._scored_choices(model)
        finally:
            model.train(was_training)
        return Details(
            texts=tuple(one.text for one in windows),
            nats=tuple(nats),
            sizes=tuple(one.size for one in windows),
            choices=tuple(right for right, _ in scored),
        )

    @torch.no_grad()
    def distributions(self, model: nn.Module) -> Tensor:
        """Log-probabilities of the next token at up to `POSITIONS` places of the general text.

        Returns:
            (places, vocabulary), float32, on the CPU; no row where there is no text.
        """
        was_training = model.training
        model.eval()
        try:
            found = [
                self._logits(model, one.row)[places].log_softmax(dim=-1).cpu()
                for one, places in zip(*self._places(), strict=False)
            ]
        finally:
            model.train(was_training)
        return torch.cat(found) if found else torch.zeros(0, 0)

    def owners(self) -> list[int]:
        """Number of the piece that each row of `distributions` is of."""
        return [number for number, places in enumerate(self._places()[1]) for _ in places]

    def _places(self) -> tuple[list[_Window], list[list[int]]]:
        """All pieces, and the places in each of the first ones at which distributions are kept."""
        windows = list(self._windows())
        chosen: list[list[int]] = []
        left = POSITIONS
        for number, one in enumerate(windows):
            if left <= 0:
                break
            share, there = -(-left // (len(windows) - number)), len(one.row.input_ids) - 1
            step = max(1, there // max(1, min(share, there)))
            chosen.append(list(range(0, there, step))[:share])
            left -= len(chosen[-1])
        return windows, chosen

    def _logits(self, model: nn.Module, row: TokenizedExample) -> Tensor:
        device = next(model.parameters()).device
        ids = torch.tensor([row.input_ids], device=device)
        with arithmetic(device, self._compute):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        # From the end: a soft prompt puts logits of its own in front of the text's.
        return logits[0, -ids.shape[1] : -1].float()

    def _windows(self) -> Iterator[_Window]:
        """Pieces of the texts."""
        total = 0
        for number, text in enumerate(self._general.texts):
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, spans = encoded["input_ids"], encoded["offset_mapping"]
            for start in range(0, len(ids), WINDOW):
                piece = ids[start : start + WINDOW]
                # The first token of a text without anything in front of it cannot be predicted.
                known = 0 if self._prefix else 1
                if len(piece) <= known or total >= MOST_TOKENS:
                    continue
                begins, ends = spans[start + known][0], spans[start + len(piece) - 1][1]
                row = self._row(self._prefix + piece[:known], piece[known:])
                yield _Window(text=number, row=row, size=len(text[begins:ends].encode()))
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

    def _scored_choices(self, model: nn.Module) -> list[tuple[bool, float]]:
        """Of each question whether its right answer is the likeliest, and how likely it is among the others."""
        probes = self._general.choices
        rows = [self._after(f"{one.query}\nAnswer:", choice) for one in probes for choice in one.choices]
        losses = iter(self._losses(model, rows))
        found = []
        for one in probes:
            scores = torch.tensor(
                [-next(losses) / len(choice.encode()) for choice in one.choices], dtype=torch.float64
            )
            found.append((int(scores.argmax()) == one.gold, float(scores.softmax(dim=0)[one.gold])))
        return found

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
    """Mean of `divergences`, nats a token; None where there is no text."""
    return float(divergences(base, tuned).mean()) if len(base) else None


def divergences(base: Tensor, tuned: Tensor) -> Tensor:
    """KL(base, tuned) at each place, in nats, (places,).

    Args:
        base: As from `Forgetting.distributions`.
        tuned: Of the same text; further columns, of tokens that were added, are left aside.
    """
    shared = tuned[:, : base.shape[1]].double()
    return (base.double().exp() * (base.double() - shared)).sum(dim=1)


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of similar length together, each group within the token budget."""
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= TOKENS_PER_PASS:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups
